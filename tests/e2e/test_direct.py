"""Tools without any discovery (-B, -A, -S), and what tools leave behind in the DHT: nothing."""
import pytest
from local import curl
from net import settled
from procs import wait_until


@pytest.fixture
def tool(world):
    return world.place()


def contacts(node):
    return sorted(row['public_key'] for row in node.cli('dht', 'peers', '--json').rows)


def dht_requests(node):
    """Requests of peers that this node's DHT has answered."""
    return node.cli('dht', 'status', '--json').json['requests']


@pytest.mark.limit(150)
def test_thirty_tools_leave_the_routing_table_as_it_was(pair, tool):
    """Each one has a fresh key: they would be dead contacts of everybody."""
    relay, a, b = pair
    nodes = [relay, a, b]
    wait_until(lambda: all(len(contacts(n)) == 2 for n in nodes), 30, 'everybody knows everybody')
    before = [contacts(n) for n in nodes]
    for i in range(10):
        assert tool.cli('dht', 'put', f'salt{i}', 'value', '--bootstrap', relay.join, '--json').json['stored'] == 3
        tool.cli('entry', 'get', a.pk, '-S', relay.join)
        tool.cli('ping', b.pk, '--bootstrap', relay.join)
    assert [contacts(n) for n in nodes] == before


def test_direct_mode_asks_nobody(world, relay, tool):
    """Sessions to the named relay only, and not one request to the DHT."""
    listener = world.place('listener')
    echo = listener.start('nc', '-l', '40', '--echo', '--ready', '-B', '-S', relay.join)
    to = f"{echo.wait_ready()['public_key']}:40"
    before = dht_requests(relay)
    assert tool.cli('nc', to, '-B', '-S', relay.join, input=b'hello').out == b'hello'
    assert tool.cli('nc', to, '--direct', '--bootstrap', relay.join, input=b'again').out == b'again'
    assert tool.cli('nc', to, '-B', '-S', relay.join, '-A', f'dmsg://{relay.pk}:8081', input=b'A').out == b'A'
    assert tool.cli('ping', to.partition(':')[0], '-B', '-S', relay.join, '--json').json['via'] == 'stream'
    assert tool.cli('dht', 'why', to.partition(':')[0], '-B', '-S', relay.join, '--json').json['reached']
    assert dht_requests(relay) == before
    tool.cli('entry', 'get', to.partition(':')[0], '--bootstrap', relay.join, code=3)  # it published nothing
    assert dht_requests(relay) != before  # the counter does count
    echo.stop()


def test_direct_mode_reaches_only_what_its_relay_has(world, relay, tool):
    """Two relays that know of each other; the listener is at one of them, and the dialler names the other."""
    other = world.node('other', '--full', '--listen', '127.0.0.1:0')
    listener = world.place('listener')
    echo = listener.start('nc', '-l', '40', '--echo', '--ready', '-B', '-S', relay.join)
    to = f"{echo.wait_ready()['public_key']}:40"
    failed = tool.try_cli('nc', to, '-B', '-S', other.join, '--timeout', '4')
    assert failed.code not in (0, 2) and other.pk[:8] in failed.err
    both = ['-B', '-S', other.join, '-S', relay.join]
    assert tool.cli('nc', to, *both, input=b'both').out == b'both'
    # Of the servers named, -A takes the one of its key.
    assert tool.try_cli('nc', to, *both, '-A', f'dmsg://{other.pk}:80', '--timeout', '4').code not in (0, 2)
    assert tool.cli('nc', to, *both, '-A', f'dmsg://{relay.pk}:80', input=b'one').out == b'one'
    echo.stop()


def test_disc_addr_goes_through_this_relay_from_a_running_node(world, pair):
    """-B -A without a list of servers: the running node dials through the relay of this key."""
    relay, a, b = pair
    echo = b.start('nc', '-l', '40', '--echo', '--ready')
    echo.wait_ready()
    to = f'{b.pk}:40'
    assert a.cli('nc', to, '-B', '-A', f'dmsg://{relay.pk}:8081', input=b'x').out == b'x'
    failed = a.try_cli('nc', to, '-B', '-A', f'dmsg://{b.pk}:8081', '--timeout', '3')
    assert failed.code not in (0, 2) and b.pk[:8] in failed.err
    echo.stop()


def test_direct_mode_of_http_and_curl(world, relay, tool):
    server = world.place('server')
    (server.dir / 'www').mkdir()
    (server.dir / 'www' / 'hello').write_bytes(b'hello over dmsg\n')
    http = server.start('http', '--dir', server.dir / 'www', '--ready', '-B', '-S', relay.join)
    pk = http.wait_ready()['public_key']
    assert tool.cli('curl', f'dmsg://{pk}/hello', '-B', '-S', relay.join).out == b'hello over dmsg\n'
    assert tool.cli('curl', f'dmsg://{pk}/hello', '-B', '-S', relay.join, '-A', f'dmsg://{relay.pk}:80').out
    http.stop()


def test_direct_mode_of_proxies(world, relay):
    """web, web -t, web srv, socks server and client, each with nothing but the relay's address."""
    direct = ['--ready', '-B', '-S', relay.join]
    server, client = world.place('server'), world.place('client')
    (server.dir / 'www').mkdir()
    (server.dir / 'www' / 'hello').write_bytes(b'hello over dmsg\n')
    before = dht_requests(relay)
    http = server.start('http', '--dir', server.dir / 'www', *direct)
    pk = http.wait_ready()['public_key']
    web = client.start('web', '-q', '0', '-p', '0', *direct)
    socks = f"127.0.0.1:{web.wait_ready()['socks_port']}"
    assert curl('--socks5-hostname', socks, f'http://{pk}.dmsg/hello') == b'hello over dmsg\n'
    fixed = client.start('web', '-t', pk, '-p', '0', *direct)
    local = fixed.wait_ready()['port']
    assert curl(f'http://127.0.0.1:{local}/hello') == b'hello over dmsg\n'
    # That local port on a dmsg port again, and a SOCKS server that leads to it.
    srv = server.start('web', 'srv', '-p', local, '-d', '81', *direct)
    srv_pk = srv.wait_ready()['public_key']
    assert client.cli('curl', f'dmsg://{srv_pk}:81/hello', *direct[1:]).out == b'hello over dmsg\n'
    far = server.start('socks', 'server', '--allow-private', *direct)
    near = client.start('socks', 'client', '-k', far.wait_ready()['public_key'], '-p', '0', *direct)
    near_port = near.wait_ready()['port']
    assert curl('--socks5', f'127.0.0.1:{near_port}', f'http://127.0.0.1:{local}/hello') == b'hello over dmsg\n'
    assert dht_requests(relay) == before
    for process in (near, far, srv, fixed, web, http):
        process.stop()


@pytest.mark.parametrize('command', ['curl', 'http', 'web', 'web srv', 'socks server', 'socks client', 'nc', 'ping', 'iperf', 'iperf server', 'server dial',
                                     'dht get', 'dht put', 'dht lookup', 'dht why', 'entry get'])
def test_every_network_command_takes_all_forms(tool, command):
    text = tool.cli(*command.split(), '--help').text
    for form in ('-B, --direct', '-A, --disc-addr', '-S, --srv', '--bootstrap', '--control', '-e, --sess'):
        assert form in text, form


@pytest.mark.parametrize('args', [['dht', 'get', '{pk}', 'note'], ['dht', 'peers'], ['entry', 'get', '{pk}'],
                                  ['entry', 'publish']], ids=' '.join)
def test_direct_is_refused_where_the_dht_is_asked(tool, args):
    pk = '0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'
    done = tool.cli(*(a.format(pk=pk) for a in args), '-B', '-S', f'{pk}@127.0.0.1:9', code=2)
    assert 'DHT' in done.err
    assert 'refused' in tool.cli(*args[:2], '--help').text


def test_direct_needs_a_server(tool):
    pk = '0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'
    tool.cli('nc', f'{pk}:40', '-B', code=2)
    tool.cli('nc', f'{pk}:40', '-B', '-A', 'dmsg://nobody:1', code=2)


def test_relays_through_a_socks_proxy(world, relay, tool):
    """--proxy: the only way out is a SOCKS5 proxy; without it the command fails."""
    web = relay.start('web', '-q', '0', '-p', '0', '--ready')
    proxy = f"127.0.0.1:{web.wait_ready()['socks_port']}"
    assert tool.cli('ip', '-S', relay.join, '-p', proxy).text == '127.0.0.1\n'
    assert tool.cli('server', 'dial', relay.join, '--proxy', proxy, '--json').json['up']
    echo = world.place('echo').start('nc', '-l', '40', '--echo', '--ready', '-S', relay.join, '--proxy', proxy)
    pk = echo.wait_ready()['public_key']
    data = bytes(range(256)) * 4000
    assert tool.cli('nc', f'{pk}:40', '-B', '-S', relay.join, '--proxy', proxy, input=data).out == data
    echo.stop()
    web.stop()
    failed = tool.cli('server', 'dial', relay.join, '--proxy', proxy, code=1)
    assert 'refused' in failed.err
    # A running node has its own way.
    assert '--proxy' in relay.cli('ip', '--proxy', proxy, code=2).err
