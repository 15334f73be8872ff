"""Mirrors: what central services hold is in the DHT too, and the way back; the services may go and come."""
import re
import socket
import urllib.request

from net import find_entry, transfer
from procs import wait_until
from test_discovery import WAIT_S, clients, disc, entry_of, relays


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
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return f'http://127.0.0.1:{s.getsockname()[1]}'


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
    """12 nodes in phases 1 to 4 beside a discovery. It is killed: look-ups, new sessions and streams go on.
    It comes back with an empty store: it is refilled from the DHT, with those too who speak no HTTP any more."""
    payload = tmp_path / 'data'
    payload.write_bytes(bytes(range(256)) * 400)
    place = world.place('disc')
    key = keyed(place)
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0', '--mirror', key, '--discovery', (url := free_url()))
    flags = ('--keyfile', place.dir / 'service.key', '--bootstrap', relay.join)
    proc = same_port(place, url, *flags)
    second = world.node('second', '--full', '--listen', '127.0.0.1:0', '--mirror', key, '--bootstrap', relay.join,
                        '--discovery', url)
    modes = ['http'] + ['hybrid'] * 4 + ['dht-first'] * 3 + ['dht'] * 2
    nodes = [world.make(f'{mode}{i}', '--bootstrap', relay.join, '--discovery', url, '--mode', mode)
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
    assert relay.status['push']['pushed'] + second.status['push']['pushed'] > 0

    proc.kill()
    http, hybrid, dht = nodes[0], nodes[1], nodes[-1]
    for asker in (hybrid, first[0], dht):
        for node in (http, nodes[2], first[1], nodes[-2]):
            wait_until(lambda a=asker, n=node: find_entry(a, n.pk), WAIT_S, f'{asker.name} finds {node.name}')
    late = world.node('late', '--bootstrap', relay.join, '--discovery', url)  # new sessions
    wait_until(lambda: find_entry(dht, late.pk), WAIT_S, 'a new node is found')
    wait_until(lambda: transfer(late, dht, payload, 2000) > 0, WAIT_S, 'new streams')
    wait_until(lambda: transfer(dht, hybrid, payload, 2001) > 0, WAIT_S, 'new streams')
    assert hybrid.status['lookups']['dht'] > 0

    again = same_port(place, url, *flags)
    wait_until(lambda: held([late, *nodes], url), WAIT_S, 'refilled')
    assert entry_of(url, nodes[-1].pk) == nodes[-1].pk
    wait_until(lambda: relay.pk in relays(url), WAIT_S, 'relays too')
    again.stop()


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
    proc.kill()
    old.kill()  # it will not register again
    again = place.start('disc', '-a', f'127.0.0.1:{url.rpartition(":")[2]}', '-t', '--store', place.dir / 'other', '--ready', *flags)
    again.wait_ready()
    wait_until(lambda: {old.pk, new.pk} <= set(clients(url)), WAIT_S, 'pulled from the DHT')
    again.stop()
