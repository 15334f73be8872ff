"""Mirrors: what central services hold is in the DHT too, and the way back; the services may go and come."""
import base64
import hashlib
import json
import random
import re
import socket
import subprocess
import urllib.request
import uuid

import pytest
from net import find_entry, transfer
from procs import wait_until
from test_discovery import WAIT_S, clients, disc, entry_of, fetch, relays


def keyed(place):
    """A key in the place's file; returns its public key."""
    return place.cli('keys', 'gen', '-o', place.dir / 'service.key', '--json').json['public_key']


def metric(url_of_metrics, name):
    with urllib.request.urlopen(f'http://{url_of_metrics}/metrics', timeout=20) as answer:
        text = answer.read().decode()
    return int(re.search(rf'^{re.escape(name)} (\d+)', text, re.M).group(1))


def test_entries_of_the_discovery_are_in_the_dht(world):
    """Somebody who knows HTTP only is found by somebody who knows the DHT only, and is not any more when it has gone."""
    place = world.place('disc')
    key = keyed(place)
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0', '--mirror', key)
    proc, url, ready = disc(place, '--keyfile', place.dir / 'service.key', '--bootstrap', relay.join, '-m', '127.0.0.1:0')
    old = world.node('old', '--discovery', url, '--mode', 'http', '--bootstrap', relay.join)
    new = world.node('new', '--bootstrap', relay.join)
    wait_until(lambda: find_entry(new, old.pk)['source'] in ('dht', 'local'), WAIT_S, 'found in the DHT')
    assert metric(ready['metrics'], 'kadmsg_disc_mirror_written_total{to="dht"}') > 0
    old.stop()
    assert entry_of(url, old.pk) is None
    wait_until(lambda: new.try_cli('entry', 'get', old.pk).code == 3, WAIT_S, 'taken back in the DHT')
    proc.stop()


NODES = 12


def free_url():
    """An address that is free now, and that no outgoing connection is given meanwhile."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as s:
            try:
                s.bind(('127.0.0.1', port))
                return f'http://127.0.0.1:{port}'
            except OSError:
                continue
    raise RuntimeError('no free port')


def held(nodes, url):
    """All of them are registered at the discovery."""
    return {n.pk for n in nodes} <= set(clients(url))


def same_port(place, url, *flags):
    """The discovery again under its address, with an empty store."""
    port = url.rpartition(':')[2]
    proc = place.start('disc', '-a', f'127.0.0.1:{port}', '-t', '--store', place.dir / 'empty', '--ready', *flags)
    proc.wait_ready()
    return proc


def test_incident_70_services_die_and_come_back(world, tmp_path):
    """12 nodes in phases 1 to 4 beside both discoveries. These are killed: look-ups, new sessions and streams go on.
    They come back with empty stores: they are refilled from the DHT, with those too who speak no HTTP any more."""
    payload = tmp_path / 'data'
    payload.write_bytes(bytes(range(256)) * 400)
    place = world.place('disc')
    tpd_place = world.place('tpd')
    tpd_key = keyed(tpd_place)
    url, tpd_url = free_url(), free_url()
    mirrors = ('--mirror', keyed(place), '--mirror', tpd_key)
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0', *mirrors, '--discovery', url)
    flags = ('--keyfile', place.dir / 'service.key', '--bootstrap', relay.join)
    services = [same_port(place, url, *flags), tpd(tpd_place, relay, tpd_url, 'one')[0]]
    second = world.node('second', '--full', '--listen', '127.0.0.1:0', *mirrors, '--bootstrap', relay.join, '--discovery', url)
    modes = ['http'] + ['hybrid'] * 4 + ['dht-first'] * 3 + ['dht'] * 2
    nodes = [world.make(f'{mode}{i}', '--bootstrap', relay.join, '--discovery', url, '--mode', mode, '--mirror', tpd_key)
             for i, mode in enumerate(modes)]
    for node in nodes:
        node.begin()
    for node in nodes:
        node.proc.wait_ready()
    assert len(nodes) + 2 == NODES
    # the discovery has all of them, those who never registered too
    wait_until(lambda: held(nodes, url), WAIT_S, 'all are at the discovery')
    first = [n for n in nodes if n.name.startswith('dht-first')]
    wait_until(lambda: all(n.status['registering'] == 'dht' for n in first), WAIT_S, 'registration over HTTP has stopped')
    assert all(n.status['http']['comes_by_dht'] and n.status['phase'] == 3 for n in first)
    assert 'registering: dht;' in first[0].cli('status').text
    assert relay.status['push']['pushed'] + second.status['push']['pushed'] > 0

    http, hybrid, dht = nodes[0], nodes[1], nodes[-1]
    wanted = [transport(hybrid, first[0]), transport(hybrid, dht)]
    wait_until(lambda: hybrid.try_cli('curl', '-d', json.dumps(wanted), f'dmsg://{tpd_key}/v3/transports/').code == 0,
               WAIT_S, 'transports are registered')
    wait_until(lambda: transports_in_dht(dht, hybrid) == ids(wanted), WAIT_S, 'and mirrored')

    for service in services:
        service.kill()
    wait_until(lambda: transports_in_dht(first[1], hybrid) == ids(wanted), WAIT_S, 'transports are found')
    for asker in (hybrid, first[0], dht):
        for node in (http, nodes[2], first[1], nodes[-2]):
            wait_until(lambda a=asker, n=node: find_entry(a, n.pk), WAIT_S, f'{asker.name} finds {node.name}')
    late = world.node('late', '--bootstrap', relay.join, '--discovery', url)  # new sessions
    wait_until(lambda: find_entry(dht, late.pk), WAIT_S, 'a new node is found')
    wait_until(lambda: transfer(late, dht, payload, 2000) > 0, WAIT_S, 'new streams')
    wait_until(lambda: transfer(dht, hybrid, payload, 2001) > 0, WAIT_S, 'new streams')
    assert hybrid.status['lookups']['dht'] > 0

    services = [same_port(place, url, *flags), tpd(tpd_place, relay, tpd_url, 'two')[0]]
    wait_until(lambda: held([late, *nodes], url), WAIT_S, 'refilled')
    assert entry_of(url, nodes[-1].pk) == nodes[-1].pk
    wait_until(lambda: relay.pk in relays(url), WAIT_S, 'relays too')
    wait_until(lambda: ids(fetch(tpd_url, f'v3/transports/edge:{hybrid.pk}')) == ids(wanted), WAIT_S, 'and transports')
    for service in services:
        service.stop()


def test_incident_70_discovery_without_pushers(world):
    """Nobody pushes: the discovery itself asks the DHT at its start for what its store has lost."""
    place = world.place('disc')
    key = keyed(place)
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0', '--mirror', key)
    flags = ('--keyfile', place.dir / 'service.key', '--bootstrap', relay.join)
    url = free_url()
    proc = same_port(place, url, *flags)
    old = world.node('old', '--discovery', url, '--mode', 'http', '--bootstrap', relay.join)
    new = world.node('new', '--bootstrap', relay.join)
    wait_until(lambda: find_entry(new, old.pk), WAIT_S, 'mirrored')
    wait_until(lambda: new.status['entry']['stored'] > 0, WAIT_S, 'published')
    proc.kill()
    old.kill()  # it will not register again
    again = place.start('disc', '-a', f'127.0.0.1:{url.rpartition(":")[2]}', '-t', '--store', place.dir / 'other', '--ready', *flags)
    again.wait_ready()
    wait_until(lambda: {old.pk, new.pk} <= set(clients(url)), WAIT_S, 'pulled from the DHT')
    again.stop()


def transport(a, b, kind='stcpr'):
    """An entry of the transport discovery, as both edges would register it."""
    edges = sorted((a.pk, b.pk), key=lambda pk: int(pk, 16))
    h = bytearray(hashlib.sha256(bytes(16) + bytes.fromhex(edges[0]) + bytes.fromhex(edges[1]) + kind.encode()).digest()[:16])
    h[6] &= 0x0f
    h[8] = h[8] & 0x3f | 0x80
    return {'t_id': str(uuid.UUID(bytes=bytes(h))), 'edges': edges, 'type': kind, 'label': 'user'}


def tpd(place, relay, url, store):
    proc = place.start('tpd', '-a', url.rpartition('/')[2], '--store', place.dir / store, '--keyfile', place.dir / 'service.key',
                       '--bootstrap', relay.join, '--ready')
    return proc, proc.wait_ready()


def ids(listed):
    return {t['t_id'] for t in listed} if isinstance(listed, list) else set()


def transports_in_dht(asker, node):
    found = asker.try_cli('dht', 'get', node.pk, 'tp', '--network')
    return ids(json.loads(found.out)) if found.code == 0 else set()


def test_transports_of_the_tpd(world):
    """Sets of transports are in the DHT, whole and by visor, and come back to a discovery whose store is lost."""
    place = world.place('tpd')
    key = keyed(place)
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0', '--mirror', key)
    a, b, c = (world.node(n, '--bootstrap', relay.join, '--mirror', key) for n in 'abc')
    url = free_url()
    proc, ready = tpd(place, relay, url, 'one')
    wanted = [transport(a, b), transport(a, b, 'sudph'), transport(a, c)]
    wait_until(lambda: a.try_cli('curl', '-d', json.dumps(wanted), f'dmsg://{key}/v3/transports/').code == 0, WAIT_S, 'registered')
    assert ids(fetch(url, f'v3/transports/edge:{a.pk}')) == ids(wanted)

    wait_until(lambda: transports_in_dht(c, a) == ids(wanted), WAIT_S, 'the whole list of a')
    wait_until(lambda: transports_in_dht(a, b) == ids(wanted[:2]), WAIT_S, 'that of b')
    deleted = a.cli('curl', '-X', 'DELETE', f'dmsg://{key}/transports/id:{wanted[1]["t_id"]}')
    assert deleted.code == 0
    left = ids(wanted) - {wanted[1]['t_id']}
    wait_until(lambda: transports_in_dht(c, a) == left, WAIT_S, 'without the one that was deleted')

    # incident 70: the store is lost; what the DHT knows is there again
    proc.kill()
    wait_until(lambda: transports_in_dht(c, a) == left, WAIT_S, 'found without the service')
    proc, ready = tpd(place, relay, url, 'two')
    wait_until(lambda: ids(fetch(url, f'v3/transports/edge:{a.pk}')) == left, WAIT_S, 'refilled')
    proc.stop()


class Redis:
    """A redis-server of the test's own, spoken to in inline commands."""

    def __init__(self, folder):
        self.port, self.folder = int(free_url().rpartition(':')[2]), folder
        self.start()

    def start(self):
        self.proc = subprocess.Popen(['redis-server', '--port', str(self.port), '--bind', '127.0.0.1', '--save', '', '--dir', self.folder],
                                     stdout=subprocess.DEVNULL)
        wait_until(lambda: self.ask('PING').startswith(b'+PONG'), WAIT_S, 'redis answers')

    def ask(self, command):
        try:
            with socket.create_connection(('127.0.0.1', self.port), timeout=20) as s:
                s.sendall(command.encode() + b'\r\n')
                s.shutdown(socket.SHUT_WR)
                return b''.join(iter(lambda: s.recv(65536), b''))
        except ConnectionError:
            return b''

    def item(self, pk, salt):
        """The item under this key's slot, or None."""
        target = hashlib.sha256(bytes.fromhex(pk) + salt.encode()).hexdigest()
        answer = self.ask(f'GET dht:{target}').split(b'\r\n')
        return json.loads(answer[1]) if answer[0].startswith(b'$') and answer[0] != b'$-1' else None

    def stop(self):
        self.proc.kill()
        self.proc.wait()


@pytest.fixture
def redis(tmp_path):
    server = Redis(tmp_path)
    yield server
    server.stop()


def test_items_for_go_full_nodes(world, redis):
    """The Redis that they load at their start: upstream's layout, by subject, signed by the service; incident 70: written anew when it was lost."""
    place = world.place('disc')
    key = keyed(place)
    proc, url, _ = disc(place, '--keyfile', place.dir / 'service.key', '--mirror-redis', f'redis://127.0.0.1:{redis.port}')
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0', '--discovery', url)
    node = world.node('node', '--discovery', url, '--mode', 'http')
    for pk in (relay.pk, node.pk):
        wait_until(lambda p=pk: redis.item(p, 'dmsg'), WAIT_S, 'mirrored')
    item = redis.item(node.pk, 'dmsg')
    assert item['k'] == key and base64.b64decode(item['salt']) == b'dmsg'
    mirrored, held_there = json.loads(base64.b64decode(item['v'])), fetch(url, f'dmsg-discovery/entry/{node.pk}')
    assert mirrored['client'] == held_there['client'] and mirrored['static'] == node.pk
    redis.stop()
    redis.start()
    wait_until(lambda: redis.item(node.pk, 'dmsg'), WAIT_S, 'written anew')
    node.stop()
    wait_until(lambda: redis.item(node.pk, 'dmsg') is None, WAIT_S, 'deleted')
    proc.stop()
