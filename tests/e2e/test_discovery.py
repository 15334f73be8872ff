"""The HTTP discovery: as a daemon, beside the DHT, and as the face of a node for programs that know nothing of the DHT."""
import json
import os
import re
import resource
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from net import find_entry, transfer
from procs import wait_until

WAIT_S = 60
SANITIZED = bool(os.environ.get('KADMSG_SAN'))


def fetch(url, path):
    try:
        with urllib.request.urlopen(f'{url}/{path}', timeout=20) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as e:
        return e.code


def clients(url):
    return fetch(url, 'dmsg-discovery/entries')


def entry_of(url, pk):
    """The key in the entry that is given for this one; None when there is none."""
    entry = fetch(url, f'dmsg-discovery/entry/{pk}')
    return entry['static'] if isinstance(entry, dict) else None


def relays(url):
    listed = fetch(url, 'dmsg-discovery/available_servers')
    return [e['static'] for e in listed] if isinstance(listed, list) else []


def disc(place, *flags):
    proc = place.start('disc', '-a', '127.0.0.1:0', '-t', '--store', place.dir / 'disc', '--ready', *flags)
    ready = proc.wait_ready()
    return proc, f'http://{ready["http"]}', ready


@pytest.fixture
def daemon(world):
    return disc(world.place('disc'))


@pytest.fixture
def payload(world):
    path = world.place('payload').dir / 'data'
    path.write_bytes(bytes(range(256)) * 2000)
    return path


def test_network_of_a_discovery(world, daemon, payload):
    """Nobody knows anybody but the URL: relay and clients find each other; incident 52: whoever stops is gone from it."""
    proc, url, _ = daemon
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0', '--discovery', url)
    wait_until(lambda: relay.pk in relays(url), WAIT_S, 'the relay is listed')
    a = world.node('a', '--discovery', url, '--mode', 'http')
    b = world.node('b', '--discovery', url)
    wait_until(lambda: {a.pk, b.pk} <= set(clients(url)), WAIT_S, 'both are registered')
    wait_until(lambda: find_entry(b, a.pk)['source'] == 'http', WAIT_S, 'found over HTTP')
    wait_until(lambda: transfer(a, b, payload, 1000) > 0, WAIT_S, 'and reached')
    tool = world.place('tool')
    assert tool.cli('entry', 'get', a.pk, '--discovery', url, '--json').json['entry']['static'] == a.pk
    assert a.status['lookups']['http'] > 0 and a.status['http']['published'] > 0
    a.stop()
    wait_until(lambda: a.pk not in clients(url), WAIT_S, 'taken back')
    # the daemon starts again on its store: everybody is still there
    before = set(clients(url))
    proc.stop()
    again, url2, _ = disc(world.place('disc'))
    assert set(clients(url2)) == before
    again.stop()


def test_served_over_dmsg(world):
    place = world.place('disc')
    proc, url, ready = disc(place, '--keyfile', place.dir / 'disc.key')
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0', '--discovery', url)
    pk = ready['dmsg'].split(':')[0]
    wait_until(lambda: pk in clients(url), WAIT_S, 'the discovery has an entry of its own')
    tool = world.place('tool')
    wait_until(lambda: json.loads(tool.try_cli('curl', '--discovery', url, f'dmsg://{pk}/health').out or b'{}')
               .get('dmsg_address') == f'{pk}:80', WAIT_S, 'it answers over dmsg')
    # and a node that has nothing but a relay and dmsg:// registers through it
    c = world.node('c', '--bootstrap', relay.join, '--discovery', f'dmsg://{pk}:80')
    wait_until(lambda: c.pk in clients(url), WAIT_S, 'registered over dmsg')
    proc.stop()


def test_face_of_a_node(world, payload):
    """Two nodes with --http in a network that has only the DHT; what is pointed at them speaks HTTP only."""
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0')
    faces = []
    for name in 'ab':
        node = world.node(name, '--bootstrap', relay.join, '--http', '127.0.0.1:0')
        faces.append('http://' + node.status['http']['address'])
        wait_until(lambda u=faces[-1]: relay.pk in relays(u), WAIT_S, 'relays are listed')
    x = world.node('x', '--discovery', faces[0], '--mode', 'http')
    y = world.node('y', '--discovery', faces[1], '--mode', 'http')
    for url in faces:
        for node in (x, y):
            wait_until(lambda u=url, n=node: entry_of(u, n.pk) == n.pk, WAIT_S, 'known on both sides')
    wait_until(lambda: transfer(x, y, payload, 1000) > 0, WAIT_S, 'and reached')
    nobody = fetch(faces[0], 'dmsg-discovery/entry/02026f0997b675aa29e8b43a0365d887947b7724ea179c19931e14ee9be7e6b7dd')
    assert nobody == 404


def test_forwarded(world, daemon):
    """In hybrid mode what is registered at a node goes to the discovery too, and what only the discovery has is found through the node."""
    proc, url, _ = daemon
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0', '--discovery', url)
    node = world.node('a', '--bootstrap', relay.join, '--discovery', url, '--http', '127.0.0.1:0')
    face = 'http://' + node.status['http']['address']
    x = world.node('x', '--discovery', face, '--mode', 'http')
    wait_until(lambda: x.pk in clients(url), WAIT_S, 'forwarded')
    only = world.node('y', '--discovery', url, '--mode', 'http')
    wait_until(lambda: entry_of(face, only.pk) == only.pk, WAIT_S, 'found through the face')
    proc.stop()
    # incident 45: the discovery is away; the network goes on
    assert entry_of(face, x.pk) == x.pk


def test_started_in_the_wrong_order(world):
    """incidents 45, 46: relay and clients are there long before the discovery; all are registered when it comes."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    url = f'http://127.0.0.1:{port}'
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0', '--discovery', url)
    a = world.node('a', '--discovery', url)
    place = world.place('disc')
    proc = place.start('disc', '-a', f'127.0.0.1:{port}', '-t', '--store', place.dir / 'disc', '--ready')
    proc.wait_ready()
    wait_until(lambda: relay.pk in relays(url) and a.pk in clients(url), WAIT_S, 'registered when it came')
    proc.stop()


def test_wrong_redis(world):
    place = world.place('disc')
    result = place.try_cli('disc', '-a', '127.0.0.1:0', '--redis', 'nonsense://x')
    assert result.code != 0 and 'redis' in result.err.lower()


def test_face_over_a_restart(world):
    """What was registered at a node is still there when it is started again; what was taken back is not."""
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0')
    node = world.node('a', '--bootstrap', relay.join, '--http', '127.0.0.1:0')
    face = 'http://' + node.status['http']['address']
    x, y = (world.node(name, '--discovery', face, '--mode', 'http') for name in 'xy')
    wait_until(lambda: {x.pk, y.pk} <= set(clients(face)), WAIT_S, 'both are registered')
    y.stop()
    wait_until(lambda: y.pk not in clients(face), WAIT_S, 'one was taken back')
    x.kill()
    node.stop()
    node.up()
    face = 'http://' + node.status['http']['address']
    assert node.status['http']['restored'] == 1
    assert entry_of(face, x.pk) == x.pk and x.pk in clients(face)
    assert entry_of(face, y.pk) is None and y.pk not in clients(face)


def settle_slow(sockets):
    """Until each is closed by the other side."""
    for s in sockets:
        s.settimeout(WAIT_S)
        try:
            while s.recv(4096):
                pass
        except ConnectionError:
            pass
        s.close()


@pytest.mark.limit(240)
def test_ten_thousand_slow_connections(daemon):
    """Incident 94: who sends nothing but a beginning is ended by a clock that no byte restarts; others are served meanwhile."""
    proc, url, _ = daemon
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        count = min(10000, hard - 500) if hard != resource.RLIM_INFINITY else 10000
        host, port = url.removeprefix('http://').split(':')
        slow = []
        for i in range(count):
            slow.append(socket.create_connection((host, int(port)), timeout=WAIT_S))
            slow[-1].sendall((b'', b'GET /health HTTP/1.1\r\nHost: x\r\nX: ', b'POST /uptimes HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{')[i % 3])
            if i % 1000 == 999:
                assert 'started_at' in fetch(url, 'health')
        assert 'started_at' in fetch(url, 'health')
        settle_slow(slow)
        assert clients(url) == []
        status = Path(f'/proc/{proc.pid}/status').read_text()
        peak_kib = int(re.search(r'VmHWM:\s+(\d+)', status)[1])
        assert SANITIZED or peak_kib < 400 * 1024
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize('request_line, codes', [
    ('GET /dmsg-discovery/../health HTTP/1.1', {404}),
    ('GET /dmsg-discovery/entry/..%2f..%2fetc%2fpasswd HTTP/1.1', {400, 404}),
    ('GET //health HTTP/1.1', {404}),
    ('GET /health/ HTTP/1.1', {404}),
    ('GET /dmsg-discovery/entry/%00 HTTP/1.1', {400, 404}),
    ('PUT /dmsg-discovery/entry/ HTTP/1.1', {405}),
    ('HEAD /health HTTP/1.1', {405}),
    ('TRACE /health HTTP/1.1', {405}),
    ('BREW /health HTTP/1.1', {400, 405, 501}),
])
def test_paths_and_methods(daemon, request_line, codes):
    host, port = daemon[1].removeprefix('http://').split(':')
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as s:
        s.sendall(f'{request_line}\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n'.encode())
        assert int(s.recv(4096).split()[1]) in codes


def test_face_serves_nothing_else(world):
    """What listens for the network answers the discovery's questions and /health; nothing else of the node is there."""
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0', '--http', '0.0.0.0:0')
    port = relay.status['http']['address'].rsplit(':', 1)[1]
    url = f'http://127.0.0.1:{port}'
    assert 'started_at' in fetch(url, 'health')
    assert isinstance(fetch(url, 'dmsg-discovery/entries'), list)
    for path in ('', 'metrics', 'status', 'debug/pprof', 'uptimes', 'dashboard', 'control', 'api', 'dht', 'config'):
        assert fetch(url, path) == 404
    request = urllib.request.Request(f'{url}/dmsg-discovery/deregister', data=b'[]', method='DELETE')
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    assert refused.value.code == 403


def test_settings_that_are_not_used(world):
    """A configuration file of upstream's is taken whole; what means nothing here is named in the log, what is unknown is refused."""
    place = world.place('disc')
    path = place.dir / 'c.json'
    path.write_text(json.dumps({'addr': '127.0.0.1:0', 'redis_pool_size': 7, 'pprof_addr': '', 'testing': True}))
    proc = place.start('disc', '--store', place.dir / 'disc', '--ready', '-c', path)
    proc.wait_ready()
    proc.stop()
    assert 'name=redis_pool_size' in proc.log and 'pprof_addr' not in proc.log
    path.write_text('{"adress": "127.0.0.1:0"}')
    assert 'adress' in place.try_cli('disc', '-c', path).err
