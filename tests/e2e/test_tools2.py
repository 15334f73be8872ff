"""ip, conf, server dial, self-ping: through a running node and alone."""
import socket

import pytest
from procs import wait_until

KEY = '0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'
SECRET = '0' * 63 + '1'


@pytest.fixture
def tool(world):
    return world.place()


@pytest.fixture
def closed_port():
    """A port on which nobody listens as long as the test runs."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        yield s.getsockname()[1]


# ---- ip ----

def test_ip_alone(relay, tool):
    for flag in ('--srv', '-d', '-S', '--bootstrap'):
        assert tool.cli('ip', flag, relay.join).text == '127.0.0.1\n'


def test_ip_through_the_node(pair):
    relay, a, _ = pair
    assert a.cli('ip').text == '127.0.0.1\n'
    answer = a.cli('ip', '--json').json
    assert answer['ip'] == '127.0.0.1' and answer['agreed']
    assert [r['server'] for r in answer['relays']] == [relay.pk]
    assert a.cli('ip', '-d', relay.pk).text == '127.0.0.1\n'


def test_ip_compares_relays(world, relay, tool, closed_port):
    """Several relays; one that does not answer is told of and does not hide the others."""
    other = world.node('other', '--full', '--listen', '127.0.0.1:0')
    dead = f'{KEY}@127.0.0.1:{closed_port}'
    done = tool.cli('ip', '-d', f'{relay.join},{other.join}', '-d', dead, '--json')
    rows = {r['server']: r for r in done.json['relays']}
    assert rows[relay.pk]['ip'] == rows[other.pk]['ip'] == done.json['ip'] == '127.0.0.1'
    assert rows[KEY]['ip'] is None and 'refused' in rows[KEY]['error'] and KEY in done.err
    assert tool.cli('ip', '-d', dead, code=1).out == b''


# ---- server dial ----

def test_server_dial_alone(relay, tool, closed_port):
    dialled = tool.cli('server', 'dial', relay.join, '--json').json
    assert dialled['up'] and dialled['server'] == relay.pk and dialled['address'] == relay.relay
    assert dialled['ms'] > 0 and dialled['rtt_ms'] > 0
    assert 'round trip' in tool.cli('server', 'dial', relay.join).text
    failed = tool.cli('server', 'dial', f'{relay.pk}@127.0.0.1:{closed_port}', code=1)
    assert 'TCP connect' in failed.err and 'refused' in failed.err and failed.out == b''
    failed = tool.cli('server', 'dial', f'{relay.pk}@127.0.0.1:{closed_port}', '--json', code=1).json
    assert not failed['up'] and failed['phase'] == 'TCP connect' and failed['exit'] == 1


def test_server_dial_of_another_key(relay, tool):
    failed = tool.try_cli('server', 'dial', f'{KEY}@{relay.relay}', '--json')
    assert failed.code != 0 and failed.json['phase'] == 'handshake'


def test_server_dial_by_look_up(world, pair):
    relay, a, b = pair
    assert a.cli('server', 'dial', relay.pk, '--json').json['existing']
    other = world.node('other', '--full', '--listen', '127.0.0.1:0', '--bootstrap', relay.join)
    wait_until(lambda: a.try_cli('server', 'dial', other.pk, '--json').code == 0, 30, 'a finds the other relay')
    # Not a relay: a stream, as upstream's command opens it.
    echo = b.start('nc', '-l', '80', '--echo', '--ready')
    echo.wait_ready()
    for target in (b.pk, f'{b.pk}:80', f'dmsg://{b.pk}:80'):
        opened = a.cli('server', 'dial', target, '--json').json
        assert opened['public_key'] == b.pk and opened['port'] == 80
    echo.stop()
    a.cli('server', 'dial', KEY, code=3)


# ---- self-ping ----

def test_self_ping(pair, tool):
    relay, a, _ = pair
    pinged = tool.cli('self-ping', '--server', relay.join)
    assert pinged.text.startswith(f'DMSG self-ping OK\n  server:  {relay.pk} @ {relay.relay}\n  own pk:  ')
    by_node = a.cli('self-ping', '--json', '-c', '5').json
    assert by_node['ok'] and by_node['public_key'] == a.pk
    assert [(r['server'], r['ok'], r['count']) for r in by_node['relays']] == [(relay.pk, True, 5)]
    assert relay.cli('self-ping', '--json').json['ok']


def test_self_ping_that_fails(relay, tool, closed_port):
    dead = f'{KEY}@127.0.0.1:{closed_port}'
    done = tool.cli('self-ping', '-S', relay.join, '-S', dead, '--json', code=1)
    assert [r['ok'] for r in done.json['relays']] == [True, False]
    assert KEY in done.err


# ---- conf ----

def test_conf_lists_servers(relay, tool):
    entry = {'static': relay.pk, 'server': {'address': relay.relay}}
    import json
    assert json.loads(tool.cli('conf', '-S', relay.join).text) == [entry]
    assert json.loads(relay.cli('conf').text) == [entry]
    form = relay.cli('conf', 'print', '--dmsghttp').text
    assert json.loads(form)['prod']['dmsg_servers'] == [entry]
    (tool.dir / 'dmsghttp-config.json').write_text(form)
    services = tool.cli('conf', 'print', '--services', '-S', relay.join, '-U', 'http://disc.example.org').text
    assert json.loads(services) == {'test': {}, 'prod': {'dmsg_discovery': 'http://disc.example.org', 'dmsg_servers': [entry]}}
    (tool.dir / 'services-config.json').write_text(services)
    assert tool.cli('conf', 'print', '--services', '-D', 'services-config.json').text == services
    assert json.loads(tool.cli('conf', 'print', '--dmsghttp', '-D', 'services-config.json').text)['prod']['dmsg_servers'] == [entry]
    assert tool.cli('ip', '-D', 'dmsghttp-config.json').text == '127.0.0.1\n'
    assert tool.cli('ip', '-F', 'dmsghttp-config.json', '-B').text == '127.0.0.1\n'


def test_conf_print_is_a_configuration_file(world, relay, tool):
    """What is printed starts the same node again, and prints the same."""
    shown = relay.cli('conf', 'print', '--json').json
    assert shown['full'] is True and shown['listen'] == relay.relay and shown['store'] == str(relay.store)
    assert shown['bootstrap'] == [] and shown['commit'] == '50ms'
    path = tool.dir / 'node.json'
    path.write_text(relay.cli('conf', 'print').text)
    assert tool.cli('conf', 'print', '--config', path, '--json').json == shown
    path.write_text('{"listen": 5}')
    tool.cli('conf', 'print', '--config', path, code=1)


def test_conf_keys(tool):
    pk, sk = tool.cli('conf', 'gen-keys').text.split()
    assert tool.cli('conf', 'verify-keys', sk).text == f'{pk}\n'
    (tool.dir / 'key').write_text(SECRET + '\n')
    (tool.dir / 'key').chmod(0o600)
    assert tool.cli('conf', 'verify-keys', '--sk-file', 'key', '--json').json == {'public_key': KEY}
    for wrong in ([], ['x'], [SECRET[1:]], [SECRET, SECRET], [SECRET, '--sk-file', 'key']):
        result = tool.cli('conf', 'verify-keys', *wrong, code=2)
        assert result.out == b'' and SECRET not in result.err


@pytest.mark.parametrize('args', [['ip', '-d', 'x'], ['ip', '-d', f'{KEY}@'], ['ip', '-B', '-d', KEY],
                                  ['ip', '-p', '127.0.0.1:1'], ['self-ping', '--server', 'x'],
                                  ['self-ping', '-c', '0'], ['server', 'dial'], ['server', 'dial', 'x'],
                                  ['server', 'dial', f'{KEY}:0'], ['server', 'dial', f'{KEY}@127.0.0.1:0'],
                                  ['conf', 'nothing']], ids=' '.join)
def test_wrong_usage(tool, args):
    result = tool.cli(*args, code=2)
    assert result.out == b'' and result.err.strip() and list(tool.dir.iterdir()) == []
