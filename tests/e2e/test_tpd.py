"""The transport discovery as a daemon: over HTTP with signed requests, over dmsg, killed and started again."""
import hashlib
import json
import urllib.error
import urllib.request
import uuid

from procs import wait_until

WAIT_S = 60


def entry(a, b, kind='stcpr', label='user'):
    """A transport entry as its definition says, made by nothing of ours."""
    edges = sorted([a, b], key=bytes.fromhex)
    digest = hashlib.sha256(bytes(16) + b''.join(bytes.fromhex(e) for e in edges) + kind.encode()).digest()
    t_id = bytearray(digest[:16])
    t_id[6] &= 0x0f
    t_id[8] = t_id[8] & 0x3f | 0x80
    return {'t_id': str(uuid.UUID(bytes=bytes(t_id))), 'edges': edges, 'type': kind, 'label': label}


def fetch(url, path, data=None, headers=(), method=None):
    request = urllib.request.Request(f'{url}{path}', data=data, headers=dict(headers), method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


class Caller:
    """Somebody with a key, who signs requests."""

    def __init__(self, place):
        self.place, self.file = place, place.dir / 'key'
        place.cli('keys', 'gen', '-o', self.file)
        self.pk = place.cli('keys', 'show', '--sk-file', self.file, '--json').json['public_key']

    def sign(self, text):
        return self.place.cli('keys', 'sign', '--sk-file', self.file, text).out.decode().split()[-1]

    def ask(self, url, path, body='', method='GET'):
        nonce = json.loads(fetch(url, f'/security/nonces/{self.pk}')[1])['next_nonce']
        headers = {'SW-Public': self.pk, 'SW-Nonce': str(nonce), 'SW-Sig': self.sign(f'{body}{nonce}')}
        return fetch(url, path, body.encode() or None, headers, method)


def tpd(place, *flags):
    proc = place.start('tpd', '-a', '127.0.0.1:0', '--store', place.dir / 'tpd', '--ready', *flags)
    ready = proc.wait_ready()
    return proc, f'http://{ready["http"]}', ready


def transports(url, pk):
    return [e['t_id'] for e in json.loads(fetch(url, f'/v3/transports/edge:{pk}')[1])]


def test_killed_and_started_again(world):
    """What was acknowledged is there after kill -9, and so is the number of the next request."""
    place = world.place('tpd')
    proc, url, _ = tpd(place)
    a, b = Caller(world.place('a')), Caller(world.place('b'))
    mine = entry(a.pk, b.pk)
    assert a.ask(url, '/v3/transports/', json.dumps([mine]), 'POST')[0] == 201
    assert a.ask(url, '/v4/update?version=v1.3.29') == (200, '{"status":"ok"}\n')
    assert fetch(url, '/v4/update')[0] == 401
    proc.kill()
    proc, url, _ = tpd(place)
    assert transports(url, b.pk) == [mine['t_id']]
    assert json.loads(fetch(url, f'/security/nonces/{a.pk}')[1])['next_nonce'] == 1
    assert b.ask(url, f'/transports/id:{mine["t_id"]}', method='DELETE') == (200, 'transport deleted')
    assert fetch(url, '/all-transports')[0] == 404
    proc.stop()


def test_over_dmsg(world):
    """incident 49: over dmsg the caller is the key of the stream; relays are those of the discovery."""
    place = world.place('disc')
    disc = place.start('disc', '-a', '127.0.0.1:0', '-t', '--store', place.dir / 'disc', '--ready')
    discovery = f'http://{disc.wait_ready()["http"]}'
    world.node('relay', '--full', '--listen', '127.0.0.1:0', '--discovery', discovery)
    place = world.place('tpd')
    proc, url, ready = tpd(place, '--keyfile', place.dir / 'tpd.key', '--dmsg-disc', discovery)
    pk = ready['dmsg'].split(':')[0]
    a, b = Caller(world.place('a')), Caller(world.place('b'))
    body = json.dumps([entry(a.pk, b.pk), entry(b.pk, b.pk)])

    def over_dmsg(*args):
        return a.place.try_cli('curl', '--discovery', discovery, '--sk-file', a.file, *args)

    wait_until(lambda: json.loads(over_dmsg(f'dmsg://{pk}/health').out or b'{}').get('dmsg_address') == f'{pk}:80',
               WAIT_S, 'it answers over dmsg')
    answer = json.loads(over_dmsg('-d', body, f'dmsg://{pk}/v3/transports/').out)
    assert [e['edges'] for e in answer] == [entry(a.pk, b.pk)['edges']]
    assert transports(url, b.pk) == [answer[0]['t_id']]
    proc.stop()
    disc.stop()


def test_no_port_of_this_host(world):
    """--mode dmsg listens nowhere, and needs a key and a way to relays; flags that cannot be are told."""
    place = world.place('tpd')
    for flags in (['--mode', 'dmsg'], ['--keyfile', place.dir / 'k'], ['--mode', 'dual'], ['--entry-timeout', '0']):
        result = place.try_cli('tpd', '-a', '127.0.0.1:0', '--store', place.dir / 's', *flags)
        assert result.code == 2 and not result.out, flags
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0')
    proc = place.start('tpd', '--mode', 'dmsg', '-t', '--keyfile', place.dir / 'k', '--bootstrap', relay.join, '--ready')
    ready = proc.wait_ready()
    assert ready['http'] is None
    address = ready['dmsg']
    tool = world.place('tool')
    wait_until(lambda: json.loads(tool.try_cli('curl', '--bootstrap', relay.join, f'dmsg://{address}/health').out or b'{}')
               .get('service_name') == 'transport-discovery', WAIT_S, 'it answers over dmsg')
    proc.stop()
