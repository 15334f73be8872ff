"""Proxies over streams: socks, web, web srv, with curl, git and plain sockets as their users."""
import base64
import json
import os
import random
import socket
import subprocess

import pytest
from local import (MIB, Files, closed_port, connect, curl, digest, listening, read_all, read_all_or_reset, read_some_or_reset,
                   socks_request)
from net import settled
from procs import wait_until

# ---- socks ----

@pytest.fixture
def socks(net, run):
    """A server at b that may go to this host, and a client at a: the client's port."""
    _, a, b, _ = net
    run(b, 'socks', 'server', '--allow', '127.0.0.0/8', '--wl', a.pk.upper(), '--timeout', '8')
    return run(a, 'socks', 'client', '-k', b.pk, '-p', '0').ready['port']


def test_socks_curl(net, socks):
    local = net[3]
    proxy = ['--socks5-hostname', f'127.0.0.1:{socks}']
    for host in ['127.0.0.1', 'localhost']:
        assert curl(*proxy, f'http://{host}:{local.http}/hello') == b'hello over dmsg\n'
    assert digest(curl(*proxy, f'http://127.0.0.1:{local.http}/big')) == digest((local.files / 'big').read_bytes())
    data = local.files / 'big'
    answer = curl(*proxy, '--data-binary', f'@{data}', f'http://127.0.0.1:{local.http}/')
    assert answer.decode() == digest(data.read_bytes())


def test_socks_data_right_behind_the_request(net, socks):
    """Nothing of it is lost, and the half-close arrives: the server answers only then."""
    data = random.Random(1).randbytes(300_000)
    s, code = socks_request(socks, '127.0.0.1', net[3].upside, data)
    assert code == 0
    s.shutdown(socket.SHUT_WR)
    assert read_all(s) == digest(data).encode() + data


def test_socks_reply_codes(net, socks):
    for host, port, want in [('127.0.0.1', closed_port(), 5), ('10.1.2.3', 80, 2), ('192.168.0.1', 80, 2),
                             ('169.254.169.254', 80, 2), ('::1', net[3].http, 2), ('0.0.0.0', net[3].http, 2),
                             ('::ffff:10.0.0.1', 80, 2), ('no-such-name.invalid', 80, None)]:
        s, code = socks_request(socks, host, port)
        assert code == want if want else code in (4, 6), (host, code)
        assert read_all(s) == b''


def test_socks_private_networks_are_forbidden_unless_allowed(net, run):
    _, a, b, local = net
    run(b, 'socks', 'server', '-q', '1082')
    port = run(a, 'socks', 'client', '-k', b.pk, '-p', '0', '-q', '1082').ready['port']
    for host in ['127.0.0.1', 'localhost', '127.1.2.3', '::1', '::ffff:127.0.0.1']:
        assert socks_request(port, host, local.http)[1] == 2, host
    run(b, 'socks', 'server', '-q', '1083', '--allow-private', '--deny', '127.9.0.0/16')
    port = run(a, 'socks', 'client', '-k', b.pk, '-p', '0', '-q', '1083').ready['port']
    assert socks_request(port, '127.0.0.1', local.http)[1] == 0
    assert socks_request(port, '127.9.0.1', local.http)[1] == 2


def test_git_clone_through_socks(net, socks):
    local, folder = net[3], net[3].files.parent
    env = {'PATH': os.environ['PATH'], 'HOME': str(folder), 'GIT_CONFIG_NOSYSTEM': '1'}

    def git(*args):
        subprocess.run(['git', '-c', 'user.name=t', '-c', 'user.email=t@t', *map(str, args)], check=True, env=env,
                       timeout=30, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    work, bare, copy = folder / 'work', local.files / 'repo.git', folder / 'copy'
    git('init', work)
    (work / 'file').write_bytes(random.Random(2).randbytes(MIB))
    git('-C', work, 'add', 'file')
    git('-C', work, 'commit', '-m', 'one')
    git('clone', '--bare', work, bare)
    git('-C', bare, 'update-server-info')
    git('-c', f'http.proxy=socks5h://127.0.0.1:{socks}', 'clone', f'http://127.0.0.1:{local.http}/repo.git', copy)
    assert (copy / 'file').read_bytes() == (work / 'file').read_bytes()


# ---- web srv, fixed ports ----

def test_raw_tcp_both_ways(net, run):
    """16 MiB there and back over one connection, with a half-close in between."""
    _, a, b, local = net
    run(b, 'web', 'srv', '-p', local.upside, '-d', '90')
    s = connect(run(a, 'socks', 'client', '-k', b.pk, '-q', '90', '-p', '0').ready['port'])
    data = random.Random(3).randbytes(16 * MIB)
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    answer = read_all(s)
    assert answer[:64].decode() == digest(data) and answer[64:] == data


# ---- web ----

@pytest.fixture
def site(net, run):
    """The local HTTP server on port 80 of b."""
    _, _, b, local = net
    run(b, 'web', 'srv', '-p', local.http)
    return b


@pytest.fixture
def web(net, run):
    ready = run(net[1], 'web', '-q', '0', '-p', '0', '--alias', f'friend={net[2].pk}').ready
    return ready['socks_port'], ready['web_port']


def base32(pk):
    return base64.b32encode(bytes.fromhex(pk)).decode().rstrip('=').lower()


def test_names(net, site, web):
    """Hex, base32 and alias; a virtual host in the Host header; by SOCKS5, HTTP proxy and in the older form."""
    pk, (socks_port, web_port) = site.pk, web
    Files.hosts.clear()
    for name in [pk, pk.upper(), base32(pk), 'friend']:
        for proxy in [['--socks5-hostname', f'127.0.0.1:{socks_port}'], ['-x', f'http://127.0.0.1:{socks_port}'],
                      ['-p', '-x', f'http://127.0.0.1:{socks_port}']]:
            assert curl(*proxy, f'http://{name}.dmsg/hello') == b'hello over dmsg\n'
        for host in [f'{name}.dmsg', f'{name}.dmsg:80', f'{name}.dmsg:{web_port}']:
            assert curl('-H', f'Host: {host}', f'http://127.0.0.1:{web_port}/hello') == b'hello over dmsg\n'
    Files.hosts.clear()
    for proxy in [['--socks5-hostname', f'127.0.0.1:{socks_port}'], ['-x', f'http://127.0.0.1:{socks_port}']]:
        two = f'http://blog.example.{pk}.dmsg/hello'
        assert curl(*proxy, two, two) == 2 * b'hello over dmsg\n'
    curl('-H', f'Host: blog.example.{pk}.dmsg', f'http://127.0.0.1:{web_port}/hello')
    assert Files.hosts == 5 * ['blog.example']


def test_big_files_through_web(net, site, web):
    data = net[3].files / 'big'
    for args in [['--socks5-hostname', f'127.0.0.1:{web[0]}'], ['-x', f'http://127.0.0.1:{web[0]}']]:
        for name in ['friend', 'www.friend']:
            assert digest(curl(*args, f'http://{name}.dmsg/big')) == digest(data.read_bytes())
            answer = curl(*args, '--data-binary', f'@{data}', '-H', 'Expect:', f'http://{name}.dmsg/')
            assert answer.decode() == digest(data.read_bytes())


def test_everything_else(net, site, web, socks, run):
    """Directly, or through an upstream proxy, which gets the name."""
    local = net[3]
    for args in [['--socks5-hostname', f'127.0.0.1:{web[0]}'], ['-x', f'http://127.0.0.1:{web[0]}']]:
        assert curl(*args, f'http://localhost:{local.http}/hello') == b'hello over dmsg\n'
    chained = run(net[1], 'web', '-q', '0', '-p', '0', '-r', f'127.0.0.1:{socks}').ready['socks_port']
    for host, code in [('localhost', 0), ('10.0.0.1', 2)]:
        assert socks_request(chained, host, local.http)[1] == code
    assert curl('-x', f'http://127.0.0.1:{chained}', f'http://localhost:{local.http}/hello') == b'hello over dmsg\n'


def test_failures_keep_their_cause(net, site, web):
    a, pk = net[1], site.pk
    nobody = a.cli('keys', 'gen', '--json').json['public_key']
    for host, port, code in [(f'{pk}.dmsg', 81, 5), (f'{nobody}.dmsg', 80, 4), ('x.dmsg', 80, 4), (f'{pk}0.dmsg', 80, 4),
                             ('127.0.0.1', closed_port(), 5), ('127.0.0.1', web[0], 2)]:
        s, got = socks_request(web[0], host, port)
        assert got == code, (host, got)
    for host, status in [(f'{pk}.dmsg:81', 502), (f'{nobody}.dmsg', 502), ('x.dmsg', 400), ('example.org', 400)]:
        answer = curl('-i', '-H', f'Host: {host}', f'http://127.0.0.1:{web[1]}/').decode()
        assert answer.startswith(f'HTTP/1.1 {status} '), answer
    page = json.loads(curl('--socks5-hostname', f'127.0.0.1:{web[0]}', 'http://status.dmsg/json'))
    assert page['public_key'] == a.pk and page['sessions'][0]['up'] and page['dial_failed'] >= 5
    assert any(nobody in e['text'] for e in page['errors'])
    html = curl('-x', f'http://127.0.0.1:{web[0]}', 'http://status.dmsg/').decode()
    assert 'kadmsg web' in html and net[0].pk in html


def test_home_page(net, run):
    relay, a, b, local = net
    ready = run(a, 'web', '-q', '0', '-p', '0', '--alias', f'friend={b.pk}').ready
    for args in (['-x', f"http://127.0.0.1:{ready['port']}"], ['--socks5-hostname', f"127.0.0.1:{ready['port']}"]):
        page = curl(*args, 'http://home.dmsg/').decode()
        assert 'href="http://friend.dmsg/"' in page and b.pk in page and 'href="http://status.dmsg/"' in page


def test_page_that_waits(net, run):
    """A port without listener may have one in a moment: browsers get a page that loads itself again, programs the reason."""
    relay, a, b, local = net
    ready = run(a, 'web', '-q', '0', '-p', '0').ready
    url, proxy = f'http://{b.pk}.dmsg:4711/<x>', ['-x', f"http://127.0.0.1:{ready['port']}"]
    html = ['-H', 'Accept: text/html,*/*;q=0.8']
    page = curl(*proxy, *html, '-i', url).decode()
    head, _, body = page.partition('\r\n\r\n')
    assert head.startswith('HTTP/1.1 502') and 'Refresh: 5' in head and 'text/html' in head
    assert 'Please wait' in body and b.pk in body and '<x>' not in body
    for plain in ([], [*html, '-d', 'x=1'], ['-H', 'Accept: application/json']):
        answer = curl(*proxy, *plain, '-i', url).decode()
        assert 'Please wait' not in answer and 'Refresh' not in answer and answer.startswith('HTTP/1.1 502')
    # What will not get better is no page to wait on.
    assert b'Please wait' not in curl(*proxy, *html, 'http://nobody.dmsg/')


def test_requests_that_are_none(net, site, web):
    for port, data, want in [
            (web[0], b'GET / HTTP/1.1\r\nHost: x\r\n\r\n', b'HTTP/1.1 400 '),
            (web[0], b'GET http://friend.dmsg/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n', b'HTTP/1.1 400 '),
            (web[0], b'POST http://friend.dmsg/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n',
             b'HTTP/1.1 400 '),
            (web[0], b'CONNECT friend.dmsg HTTP/1.1\r\n\r\n', b'HTTP/1.1 400 '),
            (web[0], b'GET http://friend.dmsg/ HTTP/1.1\r\nA: ' + b'b' * 40000, b'HTTP/1.1 431 '),
            (web[1], b'GET / HTTP/1.1\r\n\r\n', b'HTTP/1.1 400 '),
            (web[1], b'\5\1\0', b'HTTP/1.1 400 '),
            (web[0], b'\4\1\0\x50\0\0\0\1\0', b'HTTP/1.1 400 '),
            (web[0], b'\5\1\2', b'\5\xff'),
            (web[0], b'\5\1\0\5\2\0\1\1\2\3\4\0\x50', b'\5\0\5\7')]:
        s = connect(port)
        s.sendall(data)
        answer = read_all(s)
        assert answer.startswith(want), (data[:60], answer)


def test_tunnels_and_upgrades(net, site, web, run):
    """CONNECT and Upgrade carry whatever comes behind, both ways, also when it came in the same packet."""
    _, _, b, local = net
    run(b, 'web', 'srv', '-p', local.upside, '-d', '91')
    s = connect(web[0])
    s.sendall(f'CONNECT {b.pk}.dmsg:91 HTTP/1.1\r\nHost: x\r\n\r\n'.encode() + b'tunnelled')
    s.shutdown(socket.SHUT_WR)
    head, _, rest = read_all(s).partition(b'\r\n\r\n')
    assert head.startswith(b'HTTP/1.1 200 ') and rest == digest(b'tunnelled').encode() + b'tunnelled'

    def upgraded(conn):
        head = b''
        while not head.endswith(b'\r\n\r\n'):
            head += conn.recv(1)
        conn.sendall(b'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n')
        conn.sendall(head)
        while data := conn.recv(4096):
            conn.sendall(data)

    with listening(upgraded) as port:
        run(b, 'web', 'srv', '-p', port, '-d', '92')
        upgrade = 'HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n'
        for to, line in [(web[0], f'GET http://www.friend.dmsg:92/ws {upgrade.format("www.friend.dmsg:92")}'),
                         (web[1], f'GET /ws {upgrade.format("www.friend.dmsg:92")}')]:
            s = connect(to)
            s.sendall(line.encode() + b'ping')
            got = b''
            while not got.endswith(b'ping'):
                got += s.recv(4096)
            assert b'\r\n\r\nGET /ws HTTP/1.1\r\nHost: www\r\n' in got
            s.sendall(b'\x81\x85 Host: x\r\n')
            assert s.recv(100) == b'\x81\x85 Host: x\r\n'
            s.close()


def test_fixed_forwards(net, site, run):
    a, pk, local = net[1], site.pk, net[3]
    run(site, 'web', 'srv', '-p', f'{local.upside}', '-d', '93')
    ready = run(a, 'web', '-t', f'dmsg://{pk},{pk.upper()}:93', '-p', '0,0', '-c', 'true').ready
    first, second = ready['ports']
    assert curl(f'http://127.0.0.1:{first}/hello') == b'hello over dmsg\n'
    s = connect(second)
    s.sendall(b'raw')
    s.shutdown(socket.SHUT_WR)
    assert read_all(s) == digest(b'raw').encode() + b'raw'


def test_environment_file(net, site, run):
    a, local = net[1], net[3]
    path = a.dir / 'web.conf'
    path.write_text(f"# test\nWEBPORT=('0')\nRESOLVEPK=('{site.pk}')\nRAWTCP=('false')\nPROXYPORT=1\n")
    a.env['DMSGWEB'] = str(path)
    try:
        port = run(a, 'web').ready['port']
        path.write_text('WEBPORT=$(id)\n')
        assert f'{path}:1: ' in a.cli('web', code=1).err
    finally:
        del a.env['DMSGWEB']
    assert curl(f'http://127.0.0.1:{port}/hello') == b'hello over dmsg\n'
    for command in [('web', '-E'), ('web', 'srv', '-E')]:
        assert "=('" in a.cli(*command).text


@pytest.mark.parametrize('args', [
    ('web', '-t', 'PK,PK', '-p', '1,2'), ('web', '-t', 'PK', '-p', '1,2'), ('web', '-t', 'PK', '-p', '1', '-c', 'x'),
    ('web', '-p', '1,1'), ('web', '-f', 'dmsg'), ('web', '-t', 'PKx'), ('web', '-x', '127.0.0.1:1'), ('web', '--alias', 'x'),
    ('web', 'srv', '-p', '1,2', '-d', '1'), ('web', 'srv', '-w', ''), ('web', 'srv', '-w', 'PK,PKx'), ('web', 'srv', '-d', '0'),
    ('socks', 'client'), ('socks', 'client', '-k', 'PKx'), ('socks', 'server', '-w', 'PKPK'), ('socks', 'server', '--allow', '10.0.0.1/8')])
def test_wrong_usage(net, args):
    pk = net[0].pk
    result = net[1].cli(*(a.replace('PKx', pk[:-2]).replace('PK', pk) for a in args), code=2)
    assert result.out == b'' and result.err.strip()


def test_ports_that_are_taken(net, run):
    _, a, b, local = net
    assert str(local.http) in a.cli('socks', 'client', '-k', b.pk, '-p', local.http, code=1).err
    run(a, 'web', '-q', '0', '-p', '0')
    port = closed_port()
    assert 'this one' in a.cli('web', '-q', port, '-p', '0', '-r', f'127.0.0.1:{port}', code=1).err
    run(b, 'web', 'srv', '-p', '9', '-d', '94')
    assert '94' in b.cli('socks', 'server', '-q', '94', code=1).err


# ---- abuse ----

def test_whitelist(net, run):
    """The key of the stream decides: not what the list looks like, not a part of a key."""
    relay, a, b, local = net
    run(b, 'web', 'srv', '-p', local.http, '-d', '95', '-w', relay.pk.upper())
    run(b, 'socks', 'server', '-q', '96', '--allow-private', '-w', relay.pk)
    for node, works in [(a, False), (relay, True)]:
        port = run(node, 'web', '-t', f'{b.pk}:95', '-p', '0').ready['port']
        if works:
            assert curl(f'http://127.0.0.1:{port}/hello') == b'hello over dmsg\n'
        else:
            s = connect(port)
            s.sendall(b'GET /hello HTTP/1.0\r\n\r\n')
            assert read_all_or_reset(s) == b''
        port = run(node, 'socks', 'client', '-k', b.pk, '-q', '96', '-p', '0').ready['port']
        s = connect(port)
        s.sendall(b'\5\1\0')
        assert read_some_or_reset(s) == (b'\5\0' if works else b'')


def test_too_many_connections(net, run):
    """Over the limit they are closed at once; those that are there go on, and room is given again."""
    _, a, b, _ = net
    with listening(lambda conn: [conn.sendall(d) for d in iter(lambda: conn.recv(100), b'')]) as port:
        run(b, 'web', 'srv', '-p', port, '-d', '97', '--max-conns', '8')
        local = run(a, 'web', '-t', f'{b.pk}:97', '-p', '0', '--max-conns', '20').ready['port']

        def alive():
            s = connect(local)
            s.sendall(b'x')
            return s if read_some_or_reset(s) == b'x' else None

        kept = [alive() for _ in range(8)]
        assert all(kept)
        assert not any(alive() for _ in range(4))
        for s in kept:
            s.sendall(b'still here')
            assert s.recv(100) == b'still here'
        for s in kept:
            s.close()
        wait_until(alive, 15, 'there is room again')


def test_slow_reader(net, run):
    """Who takes nothing holds up neither memory nor others, and is closed in the end."""
    _, a, b, local = net
    run(b, 'web', 'srv', '-p', local.http, '-d', '98')
    web = run(a, 'web', '-q', '0', '-p', '0', '--stall-time', '2')
    port = web.ready['socks_port']
    slow = []
    for _ in range(10):
        s, code = socks_request(port, f'{b.pk}.dmsg', 98, b'GET /big HTTP/1.1\r\nHost: x\r\n\r\n')
        assert code == 0
        slow.append(s)
    assert digest(curl('--socks5-hostname', f'127.0.0.1:{port}', f'http://{b.pk}.dmsg:98/big')) == \
        digest((local.files / 'big').read_bytes())

    def status():
        return json.loads(curl('-x', f'http://127.0.0.1:{port}', 'http://status.dmsg/json'))

    assert status()['bytes_waiting'] <= 10 * 128 * 1024
    wait_until(lambda: status()['ended_stall'] == 10, 20, 'slow readers are closed')
    assert status()['connections'] == 1
    for s in slow:
        s.close()


def test_the_node_dies(world):
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0')
    proc = relay.start('web', '-q', '0', '-p', '0', '--ready')
    proc.wait_ready()
    relay.kill()
    assert proc.wait() == 1 and 'node' in proc.log


def test_through_a_relay_of_ones_choice(net, site, web):
    """SERVER.KEY.dmsg: through that server, joined for it when there is no session yet; never another way."""
    relay, a, b, _ = net
    other = relay.world.node('other', '--full', '--listen', '127.0.0.1:0', '--bootstrap', relay.join)
    settled([relay, a, other])
    proxy = ['--socks5-hostname', f'127.0.0.1:{web[0]}']
    Files.hosts.clear()
    assert curl(*proxy, f'http://{base32(relay.pk)}.{base32(b.pk)}.dmsg/hello') == b'hello over dmsg\n'
    assert curl(*proxy, f'http://blog.{base32(relay.pk)}.friend.dmsg/hello') == b'hello over dmsg\n'
    assert Files.hosts == [f'{base32(relay.pk)}.{base32(b.pk)}.dmsg', 'blog']
    nobody = a.cli('keys', 'gen', '--json').json['public_key']
    for host in [f'{nobody}.friend.dmsg', f'{b.pk}.friend.dmsg']:
        assert socks_request(web[0], host, 80)[1] in (4, 6), host

    def sessions():
        page = json.loads(curl('-x', f'http://127.0.0.1:{web[0]}', 'http://status.dmsg/json'))
        return {s['server'] for s in page['sessions'] if s['up']}

    assert curl(*proxy, f'http://{other.pk}.{other.pk}.dmsg/', code=97) == b''
    assert other.pk in sessions()
    assert curl(*proxy, 'http://friend.dmsg/hello') == b'hello over dmsg\n'


def test_proxies_that_lead_to_each_other(net, run):
    """A loop ends at the limit of connections, with a failure, and leaves nothing behind."""
    a, ports = net[1], [closed_port(), closed_port()]
    for mine, other in [ports, reversed(ports)]:
        run(a, 'web', '-q', mine, '-p', '0', '-r', f'127.0.0.1:{other}', '--max-conns', '30')
    assert socks_request(ports[0], 'example.org', 80)[1] != 0
    for port in ports:
        wait_until(lambda p=port: json.loads(curl('-x', f'http://127.0.0.1:{p}', 'http://status.dmsg/json'))['connections'] == 1,
                   15, 'all are closed')
