"""`kadmsg server`: a file of upstream's server runs our relay; health and metrics; IPv6."""
import http.server
import json
import re
import socket
import subprocess
import threading
import urllib.error
import urllib.request

from net import received, settled
from procs import Place, wait_until


def get(url):
    """Status, body."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def metrics_of(url):
    return dict(re.findall(r'^(\w+) (\d+)$', get(url)[1], re.M))


class Server(Place):
    """A relay that is started by `server start` with a file."""

    def __init__(self, world, name, config, *flags):
        super().__init__(world, name)
        self.proc = self.start('server', 'start', config, '--store', self.dir / 'store', '--ready', *flags)
        self.ready = self.proc.wait_ready()
        self.pk = self.ready['public_key']
        self.join = f'{self.pk}@{self.ready["relay"]}'

    @property
    def status(self):
        return self.cli('status', '--json').json


def generated(world, path, **members):
    world.place().cli('server', 'config', 'gen', '-o', path)
    conf = json.loads(path.read_text())
    conf.update(members)
    path.write_text(json.dumps(conf))
    return conf


LOCAL = {'discovery': '', 'public_address': '', 'local_address': '127.0.0.1:0', 'health_endpoint_address': '127.0.0.1:0'}


def test_config_gen(world, tmp_path):
    path = tmp_path / 'dmsg-server.json'
    place = world.place()
    place.cli('server', 'config', 'gen', '-o', path)
    text = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(json.loads(text)) == ['public_key', 'secret_key', 'discovery', 'public_address', 'local_address',
                                      'health_endpoint_address', 'log_level', 'update_interval', 'max_sessions']
    assert text.startswith('{\n\t"public_key": "')
    assert place.try_cli('server', 'config', 'gen', '-o', path).code == 1
    assert path.read_text() == text
    place.cli('server', 'config', 'gen', '-t', '-o', tmp_path / 'other')
    assert json.loads((tmp_path / 'other').read_text())['discovery'] != json.loads(text)['discovery']


def test_start(world, tmp_path):
    """The whole life of an operator's relay: file unchanged, members of later generations, health, metrics."""
    path = tmp_path / 'config.json'
    conf = generated(world, path, **LOCAL, max_sessions=77, ws_address=':1', new_member=[1])
    relay = Server(world, 'relay', path, '-m', '127.0.0.1:0', '--max-streams', '1000', '--workers', '2')
    assert relay.pk == conf['public_key']
    a, b = (world.node(name, '--bootstrap', relay.join) for name in 'ab')
    settled([a, b], via=relay)
    status, body = get(f'http://{relay.ready["health"]}/health')
    health = json.loads(body)
    assert status == 200 and set(health['build_info']) == {'version', 'commit', 'date'}
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z', health['started_at'])
    assert health['dmsg_address'] == f'{relay.pk}:80' and health['dht'] is True
    assert health['checks']['store'] == 'ok' and health['checks']['sessions_up'] in (0, 1)
    assert get(f'http://{relay.ready["health"]}/metrics')[0] == 404
    over_dmsg = a.cli('curl', f'dmsg://{relay.pk}:80/health').text
    assert json.loads(over_dmsg)['started_at'] == health['started_at']
    metrics = f'http://{relay.ready["metrics"]}/metrics'
    wait_until(lambda: int(metrics_of(metrics)['dmsg_server_clients_count']) >= 3, 20, 'both clients and itself')
    wait_until(lambda: int(metrics_of(metrics)['dmsg_server_vm_stream_success_total']) > 0, 20, 'streams are counted')
    assert relay.status['relay']['limits']['max_streams'] == 1000
    assert relay.status['relay']['limits']['max_links'] == 100000  # max_sessions is what the entry offers
    assert a.cli('entry', 'get', relay.pk, '--json').json['entry']['server']['availableSessions'] in (77, 76, 75, 74)
    ping = a.start('nc', f'{relay.pk}:7', stdin=subprocess.PIPE)
    ping.popen.stdin.write(b'\x09\x0a\x09')
    ping.popen.stdin.flush()
    wait_until(lambda: ping.out_path.read_bytes() == b'\x0a\x0a', 20, 'answers on port 7')
    ping.popen.stdin.close()
    assert '"ws_address" is skipped' in relay.proc.log and '"new_member" is skipped' in relay.proc.log
    assert conf['secret_key'] not in relay.proc.log


def test_start_without_dht(world, tmp_path):
    """A relay that takes no part in the DHT carries streams of those who name it."""
    path = tmp_path / 'config.json'
    generated(world, path, **LOCAL, enable_dht=False)
    relay = Server(world, 'relay', path)
    listener = world.place('b')
    sk = listener.dir / 'sk'
    listener.cli('keys', 'gen', '-o', sk)
    pk = listener.cli('keys', 'show', '--sk-file', sk, '--json').json['public_key']
    out = listener.start('nc', '-B', '-S', relay.join, '--sk-file', sk, '-l', '1234', '--ready')
    out.wait_ready()
    world.place('a').cli('nc', '-B', '-S', relay.join, f'{pk}:1234', input=b'hello')
    out.finish(30)
    assert received(out) == b'hello'
    assert json.loads(get(f'http://{relay.ready["health"]}/health')[1])['dht'] is False


class Discovery(http.server.BaseHTTPRequestHandler):
    """As much of a discovery as a server that registers needs; what it was told is kept."""
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        entry = self.server.entries.get(self.path.rpartition('/')[2])
        self.answer(200 if entry else 404, entry or b'{"code":404,"message":"entry of public key is not found"}')

    def told(self):
        body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        entry = json.loads(body)
        self.server.told.append((self.command, entry))
        self.server.entries[entry['static']] = body if self.command == 'POST' else None
        self.answer(200, b'{"code":200,"message":"wrote a new entry"}')

    do_POST = do_DELETE = told


def test_registers_without_dht(world, tmp_path):
    """With the DHT off it is the discovery of the file that hears of the relay, also of its end."""
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Discovery) as disc:
        disc.told, disc.entries = [], {}
        threading.Thread(target=disc.serve_forever, daemon=True).start()
        path = tmp_path / 'config.json'
        generated(world, path, **{**LOCAL, 'discovery': f'http://127.0.0.1:{disc.server_port}', 'enable_dht': False,
                                  'public_address': '192.0.2.7:8081', 'max_sessions': 77})
        relay = Server(world, 'relay', path)

        def entries(command):
            return [entry for c, entry in disc.told if c == command and entry['static'] == relay.pk]

        wait_until(lambda: entries('POST'), 30, 'it registers')
        entry = entries('POST')[-1]
        assert entry['server']['address'] == '192.0.2.7:8081' and entry['signature']
        assert 70 <= entry['server']['availableSessions'] <= 77
        relay.proc.stop()
        assert entries('DELETE')
        disc.shutdown()


def test_bad_files(world, tmp_path):
    path = tmp_path / 'config.json'
    good = generated(world, path, **LOCAL)
    place = world.place()
    for change, said in (({'local_address': 'x'}, 'local_address'), ({'secret_key': '00'}, 'secret_key'),
                         ({'health_endpoint_address': 'h'}, 'health_endpoint_address'),
                         ({'peers': [{}]}, 'peers')):
        path.write_text(json.dumps({**good, **change}))
        failed = place.try_cli('server', 'start', path)
        assert failed.code == 1 and said in failed.err, failed
        assert good['secret_key'] not in failed.err
    path.chmod(0o666)
    assert place.try_cli('server', 'start', path).code == 1
    assert place.try_cli('server', 'start', tmp_path / 'none').code == 1


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(('::1', 0))
        return True
    except OSError:
        return False


def test_ipv6(world):
    """A network on [::1]: published, dialled, joined by PK@[::1]:port; the relay sees who comes."""
    if not has_ipv6():  # then that is what the node says
        assert world.place().try_cli('node', '--listen', '[::1]:0').code == 1
        return
    relay = world.node('relay', '--full', '--listen', '[::1]:0')
    assert relay.join.startswith(f'{relay.pk}@[::1]:')
    a, b = (world.node(name, '--bootstrap', relay.join) for name in 'ab')
    settled([relay, a, b], via=relay)
    assert a.cli('entry', 'get', relay.pk, '--json').json['entry']['server']['address'].startswith('[::1]:')
    listener = b.start('nc', '-l', 1234, '--ready')
    listener.wait_ready()
    a.cli('nc', f'{b.pk}:1234', input=b'over six')
    listener.finish(30)
    assert received(listener) == b'over six'
    # One relay for both families.
    both = world.node('both', '--listen', '[::]:0', '--bootstrap', relay.join)
    port = both.relay.rpartition(':')[2]
    for host in ('127.0.0.1', '[::1]'):
        place = world.place()
        assert place.cli('ping', both.pk, '--bootstrap', f'{both.pk}@{host}:{port}', '--json').json['rtt_ms'] >= 0
