"""Relays that link to each other: clients of different ones reach each other with nothing configured."""
import itertools

import pytest
from net import settled
from procs import wait_until

PORT = 1234
LINK_S = 40  # a relay looks for others every 10 s at first
DHT_STREAMS = 6
NOWHERE = '127.0.0.1:9'  # published by a relay that nobody can dial, as behind NAT


def mesh(relay):
    return relay.status['relay']['mesh']


def echo(node):
    node.start('nc', '-l', PORT, '--echo', '--ready').wait_ready()


def reaches(a, b):
    data = f'{a.name} to {b.name} '.encode() * 1000
    return a.try_cli('nc', f'{b.pk}:{PORT}', input=data).out == data


def everybody_reaches_everybody(clients, timeout):
    for a, b in itertools.permutations(clients, 2):
        wait_until(lambda x=a, y=b: reaches(x, y), timeout, f'{a.name} reaches {b.name}')


@pytest.fixture
def relays(world):
    """Three, the last one behind NAT: it links to the others, they cannot dial it."""
    first = world.node('r1', '--full', '--listen', '127.0.0.1:0')
    second = world.node('r2', '--full', '--listen', '127.0.0.1:0', '--bootstrap', first.join)
    third = world.node('r3', '--full', '--listen', '127.0.0.1:0', '--bootstrap', first.join, '--public-address', NOWHERE)
    return first, second, third


@pytest.fixture
def clients(world, relays):
    """Four, each with one session to one relay."""
    first, second, third = relays
    homes = {'a': first, 'b': second, 'c': third, 'd': third}
    made = [world.node(name, '--bootstrap', home.join, '--sessions', '1') for name, home in homes.items()]
    for client in made:
        echo(client)
    return made


def linked(relays):
    for relay in relays:
        wait_until(lambda r=relay: mesh(r)['peers'] == len(relays) - 1, LINK_S, f'{relay.name} is linked to all others')


def test_links(relays):
    linked(relays)

    def kinds():
        return {row['public_key']: row['link'] for row in mesh(relays[0])['known']}
    # The second direction of a pair may come after all are linked.
    wait_until(lambda: kinds() == {relays[1].pk: 'both', relays[2].pk: 'in'}, LINK_S, 'links in the expected directions')
    assert 'link both' in relays[0].cli('status').text


@pytest.mark.limit(180)
def test_every_pair(relays, clients):
    """Also while one relay is gone, and when it is back in another place."""
    first, second, third = relays
    linked(relays)
    settled(clients)
    everybody_reaches_everybody(clients, 20)
    assert mesh(first)['forwarded'] + mesh(second)['forwarded'] > 0  # no other way leads to clients of the third one
    second.kill()
    others = [client for client in clients if client.name != 'b']
    everybody_reaches_everybody(others, 20)
    second.relay = None
    second.up()
    linked(relays)
    everybody_reaches_everybody(clients, 40)
    for client in clients:
        client.kill()
    for relay in relays:  # what is left belongs to the DHT streams among the relays themselves
        wait_until(lambda r=relay: mesh(r)['relayed'] <= DHT_STREAMS, 20, 'all slots are free again')


def test_static_peers_without_dht(world):
    """Relays that only know of each other from the command line."""
    one = world.node('one', '--full', '--listen', '127.0.0.1:0')
    two = world.node('two', '--full', '--listen', '127.0.0.1:0', '--peers', one.join, '--public-address', NOWHERE)
    linked([one, two])
    assert [row['configured'] for row in mesh(two)['known']] == [True]


def test_listed_peers_only(world):
    one = world.node('one', '--full', '--listen', '127.0.0.1:0')
    two = world.node('two', '--full', '--listen', '127.0.0.1:0', '--bootstrap', one.join, '--accepted-peer', one.pk)
    three = world.node('three', '--full', '--listen', '127.0.0.1:0', '--bootstrap', one.join)
    wait_until(lambda: mesh(one)['peers'] == 2, 20, 'one has both')
    wait_until(lambda: mesh(two)['peers'] == 1 and mesh(three)['peers'] >= 1, 20, 'two has only one')
    assert [row['public_key'] for row in mesh(two)['known'] if row['link'] != 'none'] == [one.pk]
