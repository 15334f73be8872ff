"""What hostile peers and clients do to curl, http and the proxies: everything is bounded, and others are served all the while."""
import contextlib
import gzip
import os
import resource
import socket
import threading

import pytest
from local import (MIB, closed_port, connect, curl, descriptors, digest, listening, read_all_or_reset, read_some_or_reset,
                   socks_request)
from procs import Failed, sha256_file, wait_until

# A sanitizer needs more of it.
MEMORY_KIB = (512 if '-san' in os.environ.get('KADMSG', '') else 8) * 1024


def anonymous_kib(process):
    with open(f'/proc/{process.pid}/status', encoding='ascii') as status:
        return next(int(line.split()[1]) for line in status if line.startswith('RssAnon:'))


@pytest.fixture
def served(net, run):
    """(http server of b, local port at a that leads to it): bytes go there as they are."""
    _, a, b, local = net
    http = run(b, 'http', '--dir', local.files, '--quiet')
    return http, run(a, 'web', '-t', b.pk, '-p', '0').ready['port']


def still_served(net, port=80):
    _, a, b, _ = net
    assert a.cli('curl', f'dmsg://{b.pk}:{port}/hello').out == b'hello over dmsg\n'


def answer_to(port, data, half_close=False):
    s = connect(port)
    with contextlib.suppress(ConnectionError):  # refused before all of it was taken
        s.sendall(data)
        if half_close:
            s.shutdown(socket.SHUT_WR)
    return read_all_or_reset(s)


# ---- requests ----

@pytest.mark.parametrize('request_bytes,status', [
    (b'GET / HTTP/1.1\r\nHost: x\r\n' + b'A: b\r\n' * 20000, b'431'),
    (b'GET / HTTP/1.1\r\nHost: x\r\nA: ' + b'b' * 100_000, b'431'),
    (b'GET /' + b'a' * 100_000 + b' HTTP/1.1\r\nHost: x\r\n\r\n', b'414'),
    (b'GET /' + b'%2e%2e/' * 1500 + b' HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', None)],
    ids=['many', 'long', 'target', 'dots'])
def test_header_bombs(net, served, request_bytes, status):
    http, port = served
    line = answer_to(port, request_bytes).split(b'\r\n')[0]
    assert line.startswith(b'HTTP/1.1 4') and (status is None or status in line), line
    assert anonymous_kib(http) < MEMORY_KIB
    still_served(net)


def test_slow_clients_everywhere(net, served, run):
    """Incident 94. Half a request and then nothing, or a byte now and then: a deadline of 10 s at each door, and nobody else
    waits for it."""
    _, a, b, _ = net
    http, port = served
    run(b, 'socks', 'server', '-q', '61')
    socks = run(a, 'web', '-t', f'{b.pk}:61', '-p', '0').ready['port']
    web = run(a, 'web', '-q', '0', '-p', '0').ready
    begun = b'GET / HTTP/1.1\r\nHost: x\r\nA: '
    doors = [(port, begun + b'b' * 8000), (port, begun), (socks, b'\5\1'), (web['socks_port'], b'\5'), (web['socks_port'], begun),
             (web['socks_port'], b'GET http://x.dmsg/ HT'), (web['web_port'], begun)]
    slow, stop = [], threading.Event()
    for door, data in doors * 30:
        s = connect(door)
        s.settimeout(40)
        s.sendall(data)
        slow.append((s, data))

    def dribble():
        while not stop.wait(0.5):
            for s, data in slow:
                with contextlib.suppress(OSError):
                    if data == begun:
                        s.send(b'b')

    dribbler = threading.Thread(target=dribble)
    dribbler.start()
    try:
        still_served(net)
        assert anonymous_kib(http) < MEMORY_KIB
        for s, _ in slow:
            assert not read_all_or_reset(s).startswith(b'HTTP/1.1 2')
    finally:
        stop.set()
        dribbler.join()
    for s, _ in slow:
        s.close()
    still_served(net)


def test_pipelined_requests_without_reading(net, served):
    """20 000 requests at once: what is not read is not answered, and nothing of it is kept."""
    http, port = served
    s = connect(port)
    sender = threading.Thread(target=s.sendall, args=(b'GET /hello HTTP/1.1\r\nHost: x\r\n\r\n' * 20000,), daemon=True)
    sender.start()
    still_served(net)
    assert anonymous_kib(http) < MEMORY_KIB
    seen, tail = 0, b''
    while seen < 20000:
        piece = s.recv(1 << 16)
        assert piece, seen
        data = tail + piece
        seen += data.count(b'hello over dmsg\n')
        tail = data[-15:] if b'\n' not in data[-15:] else data[data.rindex(b'\n') + 1:]
    sender.join(20)
    s.close()


def test_bodies_that_nobody_wants(net, served):
    http, port = served
    head = b'POST /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n'
    body = bytes(64 * MIB)
    answer = answer_to(port, head + b'Content-Length: %d\r\n\r\n' % len(body) + body)
    assert answer.endswith(b'\r\n\r\nhello over dmsg\n')
    chunks = b'8000\r\n' + bytes(0x8000) + b'\r\n'
    assert answer_to(port, head + b'Transfer-Encoding: chunked\r\n\r\n' + chunks * 256 + b'0\r\n\r\n').endswith(b'hello over dmsg\n')
    assert anonymous_kib(http) < MEMORY_KIB


def test_range_bombs(net, served):
    _, port = served
    ranges = ','.join(f'{i}-{i}' for i in range(1000))
    for text in (ranges, '0-,' * 1000 + '0-', '0-' + '9' * 4000):
        answer = answer_to(port, f'GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\nRange: bytes={text}\r\n\r\n'.encode())
        assert answer.split(b' ')[1] in (b'200', b'206', b'416') and len(answer) < 1000, answer[:200]


def test_slow_readers_of_files(net, served):
    http, port = served
    slow = []
    for _ in range(50):
        s = connect(port)
        s.sendall(b'GET /big HTTP/1.1\r\nHost: x\r\n\r\n')
        slow.append(s)
    _, a, b, local = net
    got = a.cli('curl', f'dmsg://{b.pk}/big').out
    assert digest(got) == sha256_file(local.files / 'big')
    assert anonymous_kib(http) < MEMORY_KIB
    for s in slow:
        s.close()


def test_half_closed_clients_get_everything(net, served, run):
    """The end of the client's bytes is not the end of its interest, on every way in."""
    _, a, b, local = net
    _, port = served
    socks = run(a, 'web', '-q', '0', '-p', '0', '--alias', f'friend={b.pk}').ready['socks_port']
    want = digest((local.files / 'big').read_bytes())
    request = b'GET %s/big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
    s, code = socks_request(socks, 'friend.dmsg', 80, request % b'')
    s.shutdown(socket.SHUT_WR)
    assert code == 0
    for answer in (read_all_or_reset(s), answer_to(port, request % b'', half_close=True),
                   answer_to(socks, request % b'http://friend.dmsg', half_close=True)):
        assert digest(answer.partition(b'\r\n\r\n')[2]) == want


# ---- limits ----

def test_connections_of_one_key(net, run):
    """Over --max-per-key they are closed, and other keys are served."""
    relay, a, b, local = net
    run(b, 'http', '--dir', local.files, '--quiet', '--port', '62', '--max-per-key', '5', '--max-conns', '8')
    port = run(a, 'web', '-t', f'{b.pk}:62', '-p', '0').ready['port']

    def alive():
        s = connect(port)
        s.sendall(b'GET /hello HTTP/1.1\r\nHost: x\r\n\r\n')
        return s if read_some_or_reset(s).startswith(b'HTTP/1.1 200') else None

    kept = [alive() for _ in range(5)]
    assert all(kept) and not any(alive() for _ in range(4))
    assert relay.cli('curl', f'dmsg://{b.pk}:62/hello').out == b'hello over dmsg\n'
    for s in kept:
        s.close()
    wait_until(alive, 20, 'there is room again')


def other_parity(pk):
    """The key with the same x, which is of nobody here."""
    return ('03' if pk.startswith('02') else '02') + pk[2:]


def test_whitelist_of_look_alikes(net, run):
    """Neither a key that differs in its sign, nor headers, nor a name lead past the list; upper case is the same key."""
    relay, a, b, local = net
    run(b, 'http', '--dir', local.files, '--quiet', '--port', '63', '--wl', f'{other_parity(a.pk)},{relay.pk.upper()}')
    url = f'dmsg://{b.pk}:63/hello'
    for flags in ([], ['-H', f'Host: {relay.pk}'], ['-H', f'Forwarded: for={relay.pk}'], ['-H', f'X-Real-IP: {relay.pk}:49153'],
                  ['-u', f'{relay.pk}:x'], ['-X', 'OPTIONS'], ['-I'], ['--path-as-is', '-H', 'Connection: close']):
        assert '403' in a.cli('curl', '-i', '-m', '20', *flags, url).text.split('\r\n')[0], flags
    assert relay.cli('curl', url).out == b'hello over dmsg\n'
    for bad in (relay.pk[:-2], relay.pk[:64], f'{relay.pk}0', f' {relay.pk} x', '0' * 66, f'{relay.pk},,x', '*'):
        for command in (['http', '--wl'], ['web', 'srv', '-w'], ['socks', 'server', '-w']):
            assert b.cli(*command, bad, code=2).out == b'', (command, bad)


def test_a_loop_of_forwards(net, run):
    """A port that leads to itself through the network: the limits of connections end it, and it ends whole."""
    _, a, b, _ = net
    port = closed_port()
    srv = run(b, 'web', 'srv', '-p', port, '-d', '64', '--max-conns', '20')
    forward = run(a, 'web', '-t', f'{b.pk}:64', '-p', port, '--max-conns', '30')
    before = [descriptors(srv), descriptors(forward)]
    s = connect(port)
    s.sendall(b'round and round')
    assert read_all_or_reset(s) == b''
    s.close()
    wait_until(lambda: [descriptors(srv), descriptors(forward)] == before, 20, 'nothing goes round any more')
    for process in (srv, forward):
        assert anonymous_kib(process) < MEMORY_KIB


def test_few_descriptors(net, run):
    """A proxy that may open few of them takes as many connections as it can serve, and closes the others at once."""
    _, a, b, local = net
    run(b, 'web', 'srv', '-p', local.http, '-d', '65')
    web = a.start('web', '-t', f'{b.pk}:65', '-p', '0', '--ready',
                  limits=[lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))])
    port = web.wait_ready()['port']

    def alive():
        s = connect(port)
        s.sendall(b'GET /hello HTTP/1.1\r\nHost: x\r\n\r\n')
        return s if read_some_or_reset(s).startswith(b'HTTP/1.1 200') else None

    kept = [s for s in (alive() for _ in range(100)) if s]
    assert 10 <= len(kept) <= 50 and descriptors(web) < 200
    for s in kept:
        s.close()
    wait_until(alive, 20, 'there is room again')
    web.stop()


# ---- answers ----

@pytest.fixture
def hostile(net, run):
    """Give it a function of a connection: the URL that leads there."""
    _, _, b, _ = net
    with contextlib.ExitStack() as stack:
        def start(serve, dport):
            run(b, 'web', 'srv', '-p', stack.enter_context(listening(serve)), '-d', dport)
            return f'dmsg://{b.pk}:{dport}/'
        yield start


def answering(*parts):
    """Reads the request's headers, then sends the parts."""
    def serve(conn):
        seen = b''
        while b'\r\n\r\n' not in seen:
            seen += conn.recv(4096)
        for part in parts:
            conn.sendall(part)
        conn.shutdown(socket.SHUT_WR)
        while conn.recv(4096):
            pass
    return serve


def test_answers_that_curl_does_not_take(net, hostile):
    a, line = net[1], b'HTTP/1.1 200 OK\r\n'
    bomb = gzip.compress(bytes(64 * MIB))
    endless = [b'A: ' + b'b' * 60_000 + b'\r\n'] * 200
    cases = [
        ('66', answering(line, *endless, b'\r\n'), [], None),
        ('67', answering(line, b'A: ' + b'b' * 2_000_000, b'\r\n\r\n'), [], None),
        ('68', answering(b'no HTTP at all\r\n\r\n'), [], None),
        ('69', answering(line + b'Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n' % len(bomb), bomb),
         ['--compressed', '--max-filesize', MIB], 63),
        ('70', answering(line + b'Content-Length: -5\r\n\r\nx'), [], None),
        ('71', answering(line + b'Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx'), [], None),
        ('72', answering(line + b'Content-Length: %d\r\n\r\n' % (2 * MIB), bytes(2 * MIB)), ['--max-filesize', MIB], 63),
        ('73', answering(line + b'Content-Le'), [], 18)]
    for port, serve, flags, code in cases:
        url = hostile(serve, port)
        client = a.start('curl', *map(str, flags), '-m', '30', '-o', a.dir / 'never', url)
        result = client.result()
        assert result.code != 0 and (code is None or result.code == code), str(result)
        assert not (a.dir / 'never').exists(), str(result)


def test_redirects_without_end(net, hostile):
    a, b = net[1], net[2]
    moved = f'HTTP/1.1 302 Found\r\nLocation: dmsg://{b.pk}:74/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'.encode()
    url = hostile(answering(moved), '74')
    assert a.cli('curl', '-L', url, code=47).out == b''
    assert a.cli('curl', '-L', '--max-redirs', '3', url, code=47).out == b''
