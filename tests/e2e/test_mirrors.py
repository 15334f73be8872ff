"""Mirrors: what central services hold is in the DHT too, and the way back; the services may go and come."""
import re

import pytest
from net import find_entry
from procs import wait_until
from test_discovery import WAIT_S, clients, disc, entry_of, relays


def keyed(place):
    """A key in the place's file; returns its public key."""
    return place.cli('keys', 'gen', '-o', place.dir / 'service.key', '--json').json['public_key']


def metric(url_of_metrics, name):
    import urllib.request
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
