"""HTTP over streams: kadmsg http serves, kadmsg curl asks, and raw peers on either side."""
import hashlib
import itertools
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest
from net import received, settled
from procs import World, sha256_file, wait_until

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[2]
raw_ports = itertools.count(2000)


def make_site(relay, server, visor):
    www = server.dir / 'www'
    (www / 'sub').mkdir(parents=True)
    (www / 'a.txt').write_bytes(b'0123456789')
    (www / 'empty').write_bytes(b'')
    (www / 'sub/index.html').write_text('<p>index</p>')
    (server.dir / 'secret').write_text('secret')
    serve(server, www)
    return relay, server, visor, www


@pytest.fixture(scope='module')
def shared():
    """One network for the tests that do not break it: the world and what make_site() gives."""
    with World(os.environ.get('KADMSG', ROOT / 'build/kadmsg'), prefix='kadmsg-e2e-') as w:
        relay = w.node('relay', '--full', '--listen', '127.0.0.1:0')
        server, visor = (w.node(name, '--bootstrap', relay.join) for name in 'ab')
        settled([relay, server, visor])
        yield w, make_site(relay, server, visor)


@pytest.fixture
def site(shared):
    """(relay, server, visor, folder): the server serves the folder on port 80."""
    world, (relay, server, visor, www) = shared
    seen = len(world.processes)
    for left in (*visor.dir.glob('got*'), *visor.dir.glob('big')):
        left.unlink()
    yield relay, server, visor, www
    for process in world.processes[seen:]:
        process.signal(signal.SIGKILL)
        process.popen.wait()
        print(process.describe())


def serve(server, www, *flags):
    proc = server.start('http', '--dir', www, '--ready', *flags)
    proc.wait_ready()
    return proc


def url(server, path='/', port=80):
    return f'dmsg://{server.pk}{"" if port == 80 else f":{port}"}{path}'


def random_file(path, size):
    path.write_bytes(random.Random(size).randbytes(size))
    return path


def headers(text):
    """{lower-case name: value} of the last block of headers."""
    block = text.replace('\r', '').strip().split('\n\n')[-1]
    return {k.lower(): v.strip() for k, _, v in (line.partition(':') for line in block.split('\n')[1:])}


def test_64_mib_both_ways(site):
    _, server, visor, www = site
    big = random_file(www / 'big', 64 * MIB)
    got = visor.dir / 'deep/down/got'
    answer = visor.cli('curl', '-o', got, '--json', url(server, '/big')).json
    assert (answer['status'], answer['bytes'], answer['file']) == (200, 64 * MIB, str(got))
    assert sha256_file(got) == sha256_file(big)
    # and the other way: the same file as the body of a PUT
    assert put(server, visor, '-T', got) == hashlib.sha256(big.read_bytes()).hexdigest()


class RawServer:
    """A listener that this test speaks HTTP with: nc -l, its standard input is the answer."""

    def __init__(self, place):
        self.port = next(raw_ports)
        self.nc = place.start('nc', '-l', self.port, '--ready', stdin=subprocess.PIPE)
        self.nc.wait_ready()

    def request(self, body_bytes=None, timeout=30):
        """(header block, body); body_bytes None: until the end of a chunked body."""
        def whole():
            head, found, body = received(self.nc).partition(b'\r\n\r\n')
            if not found or (body_bytes is not None and len(body) < body_bytes):
                return None
            if body_bytes is None and not body.endswith(b'\r\n0\r\n\r\n') and body != b'0\r\n\r\n':
                return None
            return head.decode(), body
        return wait_until(whole, timeout, 'the whole request')

    def answer(self, data):
        self.nc.popen.stdin.write(data)
        self.nc.popen.stdin.close()


def put(server, visor, *flags):
    """SHA-256 of the body that arrives when visor sends it to server."""
    raw = RawServer(server)
    size = (visor.dir / flags[1]).stat().st_size
    client = visor.start('curl', *flags, url(server, '/put', raw.port))
    head, body = raw.request(size)
    assert head.startswith('PUT /put HTTP/1.1\r\n'), head
    assert headers(head)['content-length'] == str(size)
    raw.answer(b'HTTP/1.1 201 Created\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok')
    assert client.finish().out == b'ok'
    raw.nc.finish()
    return hashlib.sha256(body).hexdigest()


def test_ranges(site):
    _, server, visor, _ = site
    for text, expected in [('0-0', b'0'), ('2-5', b'2345'), ('7-', b'789'), ('-3', b'789'), ('5-99', b'56789'),
                           ('-99', b'0123456789')]:
        assert visor.cli('curl', '--range', text, url(server, '/a.txt')).out == expected
    result = visor.cli('curl', '-i', '--range', '2-5', url(server, '/a.txt')).text
    assert result.startswith('HTTP/1.1 206 ') and headers(result.split('\r\n\r\n')[0])['content-range'] == 'bytes 2-5/10'
    visor.cli('curl', '-f', '--range', '10-', url(server, '/a.txt'), code=22)
    visor.cli('curl', '-f', '--range', '0-', url(server, '/empty'), code=22)


def test_conditions(site):
    _, server, visor, www = site
    file, target = www / 'c.txt', url(server, '/c.txt')
    file.write_bytes(b'0123456789')
    first = headers(visor.cli('curl', '-I', target).text)
    for condition in (f'If-None-Match: {first["etag"]}', f'If-Modified-Since: {first["last-modified"]}'):
        assert visor.cli('curl', '-I', '-H', condition, target).text.startswith('HTTP/1.1 304 ')
    visor.cli('curl', '-f', '-H', 'If-Match: "other"', target, code=22)
    file.write_bytes(b'changed')
    assert visor.cli('curl', '-H', f'If-None-Match: {first["etag"]}', target).out == b'changed'
    assert visor.cli('curl', '--range', '0-1', '-H', f'If-Range: {first["etag"]}', target).out == b'changed'


def test_resume_of_a_file(site):
    _, server, visor, www = site
    big = random_file(www / 'big', 5 * MIB + 3)
    part = visor.dir / 'big'
    part.write_bytes(big.read_bytes()[:3 * MIB])
    visor.cli('curl', '-O', url(server, '/big'), code=22)
    answer = visor.cli('curl', '-O', '-C', '-', '--json', url(server, '/big')).json
    assert (answer['status'], answer['bytes']) == (206, 2 * MIB + 3)
    assert sha256_file(part) == sha256_file(big)
    visor.cli('curl', '-O', '-C', '-', url(server, '/big'))  # complete: nothing to do
    assert sha256_file(part) == sha256_file(big)
    visor.cli('curl', '-O', '-C', '-', url(server, '/nope/big'), code=22)
    assert sha256_file(part) == sha256_file(big)
    part.write_bytes(b'longer' * MIB)
    visor.cli('curl', '-O', '-C', '-', url(server, '/big'), code=33)


def test_relay_killed_in_the_middle(pair):
    relay, server, visor, www = make_site(*pair)
    block = random.Random(7).randbytes(MIB)
    with open(www / 'big', 'wb') as f:
        for i in range(256):
            f.write(i.to_bytes(8, 'big') + block[8:])
    got = visor.dir / 'got'
    client = visor.start('curl', '-t', 0, '-w', '200ms', '--json', '--timeout', 5, '-o', got, url(server, '/big'))
    wait_until(lambda: got.exists() and got.stat().st_size > 0, 20, 'first bytes')
    relay.kill()
    before = got.stat().st_size
    assert client.running and before < 256 * MIB
    relay.up()
    answer = client.finish(60).json
    assert answer['attempts'] > 1 and answer['status'] == 206
    assert answer['bytes'] == 256 * MIB  # nothing came twice
    assert sha256_file(got) == sha256_file(www / 'big')


def test_a_failed_download_leaves_nothing(site):
    _, server, visor, _ = site
    got = visor.dir / 'got'
    visor.cli('curl', '-f', '-o', got, url(server, '/nope'), code=22)
    assert not got.exists()
    for body, code in ((b'Content-Length: 10\r\n\r\nhalf', 18), (b'Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n', 18)):
        raw = RawServer(server)
        client = visor.start('curl', '-o', got, url(server, '/cut', raw.port))
        raw.request(0)
        raw.answer(b'HTTP/1.1 200 OK\r\n' + body)
        assert client.result().code == code
        assert not got.exists()
        raw.nc.finish()


def test_output_files(site):
    _, server, visor, _ = site
    out = visor.dir / 'out'
    visor.cli('curl', '-o', out, url(server, '/a.txt'))
    refused = visor.cli('curl', '-o', out, url(server, '/empty'), code=22)
    assert 'exists' in refused.err and out.read_bytes() == b'0123456789'
    visor.cli('curl', '-r', '-o', out, url(server, '/empty'))
    assert out.read_bytes() == b''
    folder = visor.dir / 'folder'
    folder.mkdir()
    visor.cli('curl', '-o', folder, url(server, '/a.txt?x=1'))
    assert (folder / 'a.txt').read_bytes() == b'0123456789'
    visor.cli('curl', '-o', '/dev/null', url(server, '/a.txt'), url(server, '/a.txt'))  # there, but no file
    assert os.path.exists('/dev/null')
    visor.cli('curl', '-O', url(server, '/'), code=22)
    assert visor.cli('curl', '-n', url(server, '/a.txt')).out == b'0123456789'
    assert not (visor.dir / 'a.txt').exists()


def test_head_listing_redirects(site):
    _, server, visor, www = site
    (www / 'odd <&"\'> :%name').write_text('x')
    head = visor.cli('curl', '-I', url(server, '/a.txt')).text
    assert head.startswith('HTTP/1.1 200 ') and headers(head)['content-length'] == '10'
    assert headers(head)['content-type'] == 'text/plain; charset=utf-8'
    listing = visor.cli('curl', url(server)).text
    assert 'href="./a.txt"' in listing and 'href="./sub/"' in listing
    assert 'odd &lt;&amp;&quot;&#39;&gt; :%name' in listing and '<&' not in listing
    link = "./odd%20%3C&%22'%3E%20%3A%25name"
    assert f'href="{link}"' in listing, listing
    assert visor.cli('curl', url(server, link[1:])).out == b'x'
    moved = visor.cli('curl', '-i', url(server, '/sub')).text
    assert moved.startswith('HTTP/1.1 301 ') and '\r\nLocation: /sub/\r\n' in moved
    assert visor.cli('curl', '-L', url(server, '/sub')).text == '<p>index</p>'
    visor.cli('curl', '-f', url(server, '/nope'), code=22)
    assert visor.cli('curl', url(server, '/nope')).text == 'Not Found\n'


def test_redirect_to_another_key(site, shared):
    relay, server, visor, _ = site
    other = shared[0].node('other', '--bootstrap', relay.join)
    raw = RawServer(other)
    client = visor.start('curl', '-L', '-u', 'me:secret', '-d', 'x', url(other, '/from', raw.port))
    head, _ = raw.request(1)
    assert 'authorization' in headers(head)
    raw.answer(f'HTTP/1.1 302 Found\r\nLocation: dmsg://{server.pk}/a.txt\r\nContent-Length: 0\r\n'
               'Connection: close\r\n\r\n'.encode())
    assert client.finish().out == b'0123456789'
    raw = RawServer(other)
    client = visor.start('curl', '-L', url(other, '/from', raw.port))
    raw.request(0)
    raw.answer(b'HTTP/1.1 302 Found\r\nLocation: http://example.com/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
    result = client.result()
    assert result.code == 3 and 'public key' in result.err


@pytest.mark.parametrize('size', [0, 1, 4070, 8 * MIB])
def test_post(site, size):
    _, server, visor, _ = site
    data = random_file(visor.dir / 'data', size).read_bytes()
    raw = RawServer(server)
    client = visor.start('curl', '-d', f'@{visor.dir}/data' if size else '', '-a', 'Me/1',
                         url(server, '/post?a=b', raw.port))
    head, body = raw.request(size)
    assert head.startswith('POST /post?a=b HTTP/1.1\r\n') and body == data
    sent = headers(head)
    assert sent['content-length'] == str(size) and sent['content-type'] == 'text/plain'
    assert sent['user-agent'] == 'Me/1' and sent['host'] == f'{server.pk}:{raw.port}'
    raw.answer(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok')
    assert client.finish().out == b'ok'


def test_chunked_both_ways(site):
    _, server, visor, _ = site
    raw = RawServer(server)
    client = visor.start('curl', '-T', '-', url(server, '/put', raw.port), stdin=subprocess.PIPE)
    client.popen.stdin.write(b'piped')
    client.popen.stdin.close()
    head, body = raw.request()
    assert headers(head)['transfer-encoding'] == 'chunked' and body == b'5\r\npiped\r\n0\r\n\r\n'
    raw.answer(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n'
               b'6\r\nhello\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: 1\r\n\r\n')
    assert client.finish().out == b'hello\nabc'


def test_keep_alive(site):
    _, server, visor, _ = site
    log = server.dir / 'log'
    serve(server, server.dir / 'www', '--port', 81, '--log', log)
    out = visor.cli('curl', *[url(server, '/a.txt', 81)] * 5).out
    assert out == b'0123456789' * 5
    callers = {line.split(' ')[0] for line in log.read_text().splitlines()}
    assert len(callers) == 1 and callers.pop().startswith(visor.pk + ':')
    assert log.read_text().count('"GET /a.txt HTTP/1.1" 200 10\n') == 5


def test_200_at_once(site):
    _, server, visor, www = site
    (www / 'small').write_bytes(b'small' * 100)
    clients = [visor.start('curl', url(server, '/small')) for _ in range(200)]
    assert all(c.finish().out == b'small' * 100 for c in clients)


def test_whitelist(site, shared):
    relay, server, visor, www = site
    stranger = shared[0].node('stranger', '--bootstrap', relay.join)
    serve(server, www, '--port', 82, '--wl', f'{visor.pk.upper()},{server.pk}')
    assert visor.cli('curl', url(server, '/a.txt', 82)).out == b'0123456789'
    refused = stranger.cli('curl', '-i', '-H', f'X-Forwarded-For: {visor.pk}', url(server, '/a.txt', 82)).text
    assert refused.startswith('HTTP/1.1 403 Forbidden\r\n') and refused.endswith('\r\n\r\nForbidden\n')
    server.cli('http', '--wl', visor.pk[:-2], code=2)
    server.cli('http', '--wl', '', code=2)


def test_nothing_outside_the_root(site):
    _, server, visor, www = site
    os.symlink('../secret', www / 'up')
    os.symlink(server.dir / 'secret', www / 'absolute')
    os.symlink('..', www / 'dir-up')
    os.symlink('../a.txt', www / 'sub/inside')
    os.mkfifo(www / 'fifo')
    for path in ('/up', '/absolute', '/dir-up/secret', '/dir-up/', '/../secret', '/sub/../../secret',
                 '/%2e%2e/secret', '/..%2fsecret', '/sub/..%2f..%2fsecret', '/%2e%2e%2fsecret', '/.%2e/secret',
                 '//../secret', '/./../secret', '/sub/%2e%2e/%2e%2e/secret', f'/{server.dir}/secret',
                 '/a.txt/../../secret', '/a.txt%00/../../secret', '/\\..\\secret', '/fifo', '/proc/self/root/'):
        result = visor.cli('curl', '-L', '--path-as-is', '--max-time', 10, url(server, path))
        assert b'secret' != result.out and result.out in (b'Not Found\n', b'Bad Request\n'), (path, str(result))
    assert visor.cli('curl', url(server, '/sub/inside')).out == b'0123456789'


def test_refusals_and_exit_codes(site):
    _, server, visor, _ = site
    for bad in (server.pk, 'dmsg://', 'dmsg://zz/', f'dmsg://{server.pk}:0/', f'dmsg://{server.pk}:99999/',
                f'dmsg://{server.pk[:-2]}/', f'dmsg://{server.pk}/a b', f'dmsg://user@{server.pk}/'):
        assert visor.cli('curl', bad, code=3).out == b''
    for usage in ([], ['--nope', 'dmsg://x'], ['-t', '-1', url(server)], ['-n', '-o', 'x', url(server)],
                  ['-d', 'x', '-T', 'y', url(server)], ['-C', 'x', url(server)], ['--json', url(server)],
                  ['-B', url(server)]):
        assert visor.cli('curl', *usage, code=2).out == b''
    closed = visor.cli('curl', url(server, '/', 4444), code=7)
    assert 'no associated listener' in closed.err
    nobody = '02' + '7' * 62 + 'd1'
    result = visor.try_cli('curl', '--timeout', 5, f'dmsg://{visor.pk[:2]}{nobody[2:]}/')
    assert result.code in (3, 6, 28), str(result)  # 3: not a point of the curve
    assert visor.cli('curl', '-T', 'missing', url(server), code=26).err
    place = visor.world.place('nowhere')
    assert place.cli('curl', url(server, '/'), code=6).err


def test_without_a_node(site, shared):
    relay, server, _, _ = site
    place = shared[0].place('alone')
    target = url(server, '/a.txt')
    assert place.cli('curl', '-S', relay.join, target).out == b'0123456789'
    conf = place.dir / 'dmsghttp-config.json'
    pk, address = relay.join.split('@')
    conf.write_text('{"prod":{"dmsg_servers":[{"static":"%s","server":{"address":"%s"}}]}}' % (pk, address))
    assert place.cli('curl', '-B', '-D', conf, '-A', f'dmsg://{pk}:8081', '-e', 1, target).out == b'0123456789'
    place.cli('curl', '-B', '-D', conf, '-A', f'dmsg://{server.pk}:80', target, code=2)
    # a discovery that is none does no harm beside the DHT
    assert place.cli('curl', '-D', conf, '-A', f'dmsg://{server.pk}:80', target).out == b'0123456789'
    key = place.cli('keys', 'gen', '--json').json
    www = server.dir / 'www'
    proc = place.start('http', '-S', relay.join, '-s', key['secret_key'], '-d', www, '--ready')
    assert proc.wait_ready()['public_key'] == key['public_key']
    assert key['secret_key'] not in proc.log
    wait_until(lambda: server.try_cli('curl', f'dmsg://{key["public_key"]}/a.txt').out == b'0123456789', 20,
               'found by its key')
    proc.stop()


def test_broken_requests(site):
    _, server, visor, _ = site

    def ask(request):
        return visor.cli('nc', f'{server.pk}:80', input=request, timeout=30).out

    assert ask(b'GET /a.txt HTTP/1.1\r\n\r\n').startswith(b'HTTP/1.1 400 ')
    assert ask(b'GARBAGE\r\n\r\n') == b''  # closed: the library has no answer to that
    assert ask(b'GET /a.txt HTTP/1.0\r\n\r\n').endswith(b'0123456789')
    big = b'GET / HTTP/1.1\r\nHost: x\r\n' + b'X: ' + b'y' * 70000 + b'\r\n\r\n'
    assert b' 431 ' in ask(big).split(b'\r\n')[0]
    smuggled = (b'POST /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n'
                b'Connection: close\r\n\r\n0\r\n\r\nGET /secret HTTP/1.1\r\nHost: x\r\n\r\n')
    assert ask(smuggled).count(b'HTTP/1.1 ') == 1
    assert visor.cli('curl', url(server, '/a.txt')).out == b'0123456789'
