"""Big and many transfers: 1 GiB both ways, resume, 200 at once, bodies of all sizes, through the tools and the proxy."""
import contextlib
import hashlib
import random
import resource
import signal
import socket
import subprocess

import pytest
from local import MIB, connect, curl, descriptors, digest, read_all
from procs import Failed, sha256_file, wait_until

GIB = 1 << 30
MARK = 64


def marked_file(path, size):
    """A sparse file that little disk is needed for, but no two of its pieces of 1 MiB are equal."""
    dice = random.Random(size)
    with open(path, 'wb') as f:
        f.truncate(size)
        for at in range(0, size - MARK, MIB):
            f.seek(at + dice.randrange(min(MIB, size - at) - MARK + 1))
            f.write(dice.randbytes(MARK))
    return path


@pytest.fixture
def site(net, run):
    """A folder of b at port 80 by `http`, the local server of the tests at port 81 by `web srv`."""
    _, _, b, local = net
    www = b.dir / 'www'
    www.mkdir(exist_ok=True)
    run(b, 'http', '--dir', www, '--quiet')
    run(b, 'web', 'srv', '-p', local.http, '-d', '81')
    yield www
    for left in www.iterdir():
        left.unlink()


def sha256_of_output(place, *args):
    """SHA-256 of what a command prints, without keeping it."""
    sha = hashlib.sha256()
    with subprocess.Popen([place.world.program, *map(str, args)], env=place.env, stdout=subprocess.PIPE) as proc:
        while piece := proc.stdout.read(MIB):
            sha.update(piece)
    if proc.returncode != 0:
        raise Failed(f'{args}: exit code {proc.returncode}')
    return sha.hexdigest()


@pytest.mark.limit(300)
def test_1_gib_down_and_up(net, site):
    _, a, b, _ = net
    big = marked_file(site / 'big', GIB)
    sha = sha256_file(big)
    assert sha256_of_output(a, 'curl', f'dmsg://{b.pk}/big') == sha
    assert a.cli('curl', '-T', big, f'dmsg://{b.pk}:81/up', timeout=240).text == sha


def test_ranges_behind_4_gib(net, site):
    _, a, b, _ = net
    at = 5 * GIB - 3
    with open(site / 'huge', 'wb') as f:
        f.seek(at)
        f.write(b'0123456789')
    url = f'dmsg://{b.pk}/huge'
    assert a.cli('curl', '--range', f'{at}-{at + 3}', url).out == b'0123'
    assert a.cli('curl', '--range', '-4', url).out == b'6789'
    assert a.cli('curl', '-C', at + 8, url).out == b'89'
    assert a.cli('curl', '-f', '--range', f'{at + 10}-', url, code=22).out == b''
    part = a.dir / 'huge'
    with open(part, 'wb') as f:
        f.truncate(at)
    assert a.cli('curl', '-C', '-', '-o', part, '--json', url).json['bytes'] == 10
    with open(part, 'rb') as f:
        f.seek(at)
        assert f.read() == b'0123456789'
    part.unlink()


@pytest.mark.limit(180)
def test_resume_after_the_relay_was_killed(pair):
    """curl -C - keeps what came when the relay dies, and a second one fetches the rest."""
    relay, server, visor = pair
    www = server.dir / 'www'
    www.mkdir()
    big = marked_file(www / 'big', 256 * MIB)
    server.start('http', '--dir', www, '--quiet', '--ready').wait_ready()
    url, got = f'dmsg://{server.pk}/big', visor.dir / 'got'
    client = visor.start('curl', '-C', '-', '-o', got, '--stall-time', '5', url)
    wait_until(lambda: got.exists() and got.stat().st_size > 0, 20, 'first bytes')
    client.signal(signal.SIGSTOP)
    relay.kill()
    client.signal(signal.SIGCONT)
    assert client.result().code in (18, 28, 56), client.describe()
    before = got.stat().st_size
    assert 0 < before < big.stat().st_size
    relay.up()

    def rest():
        result = visor.try_cli('curl', '-C', '-', '-o', got, '--json', url)
        return result.json if result.code == 0 else None

    answer = wait_until(rest, 60, 'the rest has come')
    assert (answer['status'], answer['bytes']) == (206, big.stat().st_size - before)
    assert sha256_file(got) == sha256_file(big)


@pytest.mark.parametrize('size', [0, 1, 65535, 65537, MIB + 1, 100 * MIB])
def test_bodies_to_a_real_server(net, site, size):
    _, a, b, _ = net
    data = marked_file(a.dir / 'data', size) if size > MIB else a.dir / 'data'
    if size <= MIB:
        data.write_bytes(random.Random(size).randbytes(size))
    target = f'dmsg://{b.pk}:81/post'
    assert a.cli('curl', '-d', f'@{data}', target).text == sha256_file(data)
    assert a.cli('curl', '-X', 'POST', '-T', data, target).text == sha256_file(data)
    with open(data, 'rb') as stdin:  # chunked: the length of a pipe is not known
        piped = subprocess.Popen(['cat'], stdin=stdin, stdout=subprocess.PIPE)
        assert a.cli('curl', '-T', '-', target, stdin=piped.stdout).text == sha256_file(data)
        piped.stdout.close()
        assert piped.wait(20) == 0


@pytest.fixture
def proxy(net, run):
    port = run(net[1], 'web', '-q', '0', '-p', '0', '--alias', f'friend={net[2].pk}').ready['socks_port']
    return ['--socks5-hostname', f'127.0.0.1:{port}']


def test_200_at_once_through_the_proxy(net, site, proxy):
    """One curl, 200 connections at the same time, each with a body of its own."""
    got = net[1].dir / 'got'
    got.mkdir()
    for i in range(1, 201):
        (site / f'part{i}').write_bytes(random.Random(i).randbytes(64 * 1024 + i))
    curl(*proxy, '--max-time', '80', '--parallel', '--parallel-immediate', '--parallel-max', '200',
         'http://friend.dmsg/part[1-200]', '-o', f'{got}/part#1', timeout=85)
    for i in range(1, 201):
        assert (got / f'part{i}').read_bytes() == (site / f'part{i}').read_bytes()


def test_1000_connections_in_one_instant(net, run):
    """More than the queues of relay and peer hold at once: none is refused, they take turns."""
    _, a, b, local = net
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n = min(1000, hard - 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, n + 100), hard))
    run(b, 'http', '--dir', local.files, '--quiet', '--port', '83', '--max-per-key', '2000', '--max-conns', '2000')
    port = run(a, 'web', '-t', f'{b.pk}:83', '-p', '0', '--max-conns', '2000').ready['port']
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connect(port)) for _ in range(n)]
        for s in opened:
            s.settimeout(60)
            s.sendall(b'GET /hello HTTP/1.1\r\nHost: x\r\n\r\n')
        for s in opened:
            assert s.recv(15, socket.MSG_WAITALL) == b'HTTP/1.1 200 OK'


def test_keep_alive_head_chunked_by_the_proxy(net, site, proxy):
    (site / 'a').write_bytes(b'0123456789')
    url = 'http://friend.dmsg/a'
    seen = curl(*proxy, '-w', ' %{num_connects} %{http_code}\n', url, url, '-r', '2-3')
    assert seen == b'23 1 206\n23 0 206\n'
    head = curl(*proxy, '-I', url).decode()
    assert head.startswith('HTTP/1.1 200 ') and 'Content-Length: 10\r\n' in head
    data = net[3].files / 'big'
    for target in ['http://friend.dmsg:81/up', 'http://www.friend.dmsg:81/up']:
        answer = curl(*proxy, '-i', '-T', data, '-H', 'Transfer-Encoding: chunked', '-H', 'Expect:', target).decode()
        head, _, body = answer.partition('\r\n\r\n')
        assert 'Transfer-Encoding: chunked' in head and body == sha256_file(data)


def test_a_client_that_leaves_in_the_middle(net, site, run):
    """The stream of a download that nobody reads on is given back soon, at the server, too."""
    _, a, b, _ = net
    marked_file(site / 'big', 64 * MIB)
    http = run(b, 'http', '--dir', site, '--quiet', '--port', '82')
    before = descriptors(http)
    port = run(a, 'web', '-t', f'{b.pk}:82', '-p', '0').ready['port']
    for _ in range(20):
        s = connect(port)
        s.sendall(b'GET /big HTTP/1.1\r\nHost: x\r\n\r\n')
        assert s.recv(100).startswith(b'HTTP/1.1 200 ')
        s.close()
    wait_until(lambda: descriptors(http) == before, 20, 'no connection is left')
    s = connect(port)
    s.sendall(b'GET /big HTTP/1.0\r\nHost: x\r\n\r\n')
    assert digest(read_all(s).partition(b'\r\n\r\n')[2]) == sha256_file(site / 'big')
