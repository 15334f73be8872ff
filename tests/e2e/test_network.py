"""Networks of 1, 2, 3 and 12 nodes: everybody finds everybody, by DHT alone."""
import hashlib

import pytest
from net import delegated, find_entry, settled
from procs import wait_until


def test_ready_line(world):
    node = world.node('one', '--full', '--listen', '127.0.0.1:0')
    ready = node.proc.ready
    assert set(ready) >= {'event', 'public_key', 'node_id', 'relay', 'http', 'control'}
    assert ready['node_id'] == hashlib.sha256(bytes.fromhex(node.pk)).hexdigest()
    assert ready['relay'].startswith('127.0.0.1:') and int(ready['relay'].split(':')[1]) > 0
    assert ready['http'] is None
    assert ready['control'] == str(node.dir / 'run/kadmsg/control')


def test_ready_line_without_relay(pair):
    _, visor, _ = pair
    assert visor.proc.ready['relay'] is None


def test_first_start_makes_a_key_and_prints_the_join_line(world):
    """The founder's first minutes: no key, no configuration."""
    place = world.place('founder')
    store = place.dir / 'store'
    proc = place.start('node', '--full', '--listen', '127.0.0.1:0', '--store', store, '--ready')
    ready = proc.wait_ready()
    wait_until(lambda: f'--bootstrap {ready["public_key"]}@{ready["relay"]}' in proc.log, 5, 'join line')
    keys = [p for p in store.iterdir() if p.stat().st_size < 512 and ready['public_key'] in p.read_text(errors='replace')]
    assert len(keys) == 1 and keys[0].stat().st_mode & 0o777 == 0o600
    proc.stop()
    again = place.start('node', '--full', '--listen', '127.0.0.1:0', '--store', store, '--ready')
    assert again.wait_ready()['public_key'] == ready['public_key']
    again.stop()


def test_alone(world):
    """One node is a network already: it finds itself, and what it put."""
    one = world.node('one', '--full', '--listen', '127.0.0.1:0')
    answer = wait_until(lambda: find_entry(one, one.pk), 15, 'own entry')
    assert answer['entry']['server']['address'] == one.relay
    one.cli('dht', 'put', 'note', 'alone')
    assert one.cli('dht', 'get', one.pk, 'note').text.rstrip('\n') == 'alone'
    status = one.status
    assert status['public_key'] == one.pk and status['node_id'] == one.proc.ready['node_id']
    assert set(status) >= {'role', 'uptime_s', 'sessions', 'streams', 'routing_peers', 'stored_items', 'lookups', 'version'}
    assert set(status['lookups']) >= {'cache', 'dht', 'http', 'miss'}
    assert status['routing_peers'] == 0
    wait_until(lambda: one.status['stored_items'] >= 2, 15, 'its records and the note in its store')


@pytest.mark.limit(180)
@pytest.mark.parametrize('count', [2, 3, 12])
def test_every_node_finds_every_other(world, relay, count):
    nodes = [relay]
    for i in range(1, count):
        nodes.append(world.make(f'n{i}', '--bootstrap', relay.join).begin())
    for node in nodes[1:]:
        node.proc.wait_ready()
    settled(nodes, timeout=60)
    for asker in nodes:
        for node in nodes:
            answer = find_entry(asker, node.pk)
            assert answer['source'] in ('cache', 'local', 'dht'), answer
            if node is relay:
                assert answer['entry']['server']['address'] == relay.relay
            else:
                assert relay.pk in delegated(answer)
        lookups = asker.status['lookups']
        assert lookups['http'] == 0 and lookups['cache'] + lookups['dht'] >= count - 1
    # An item of the last one reaches the first visor and the relay, and is really looked for in the network.
    put = nodes[-1].cli('dht', 'put', 'note', f'of {count}', '--json').json
    assert put['stored'] >= 1 and put['asked'] >= put['stored'] and len(put['target']) == 64
    for asker in nodes[:-1]:
        got = asker.cli('dht', 'get', nodes[-1].pk, 'note', '--network', '--json').json
        assert (got['value'], got['seq'], got['k'], got['salt']) == (f'of {count}', put['seq'], nodes[-1].pk, 'note')
    assert relay.status['routing_peers'] >= count - 1


@pytest.mark.parametrize('order', ['relay last', 'visor first'])
def test_started_in_any_order(world, order):
    """Nobody has to be there first: bootstrap is tried again until it answers."""
    relay = world.make('relay', '--full', '--listen', '127.0.0.1:0')
    relay.up()  # only to get its port
    relay.stop()
    visors = [world.make(f'v{i}', '--bootstrap', relay.join) for i in range(2)]
    visors[0].begin()
    if order == 'relay last':
        visors[1].begin()
    relay.up()
    if order == 'visor first':
        visors[1].begin()
    for visor in visors:
        visor.proc.wait_ready()
    settled([relay, *visors], timeout=60)


def test_clean_stop_withdraws_the_entry(pair):
    relay, a, b = pair
    assert find_entry(b, a.pk)
    a.stop()

    def gone():
        return relay.try_cli('entry', 'get', a.pk).code == 3
    wait_until(gone, 20, 'entry withdrawn')
    assert not (a.dir / 'run/kadmsg/control').exists()


def test_unknown_key_is_not_found(pair):
    _, a, _ = pair
    nobody = a.cli('keys', 'gen', '--json').json['public_key']
    for args in (['entry', 'get', nobody], ['dht', 'get', nobody, 'note']):
        result = a.cli(*args, '--json', code=3)
        assert result.out == b'' and 'not found' in result.err
    assert a.status['lookups']['miss'] >= 1


def test_without_a_running_node(world, pair):
    """Every command finds its way with --bootstrap alone, under a fresh key, and leaves no entry behind."""
    relay, a, b = pair
    tool = world.place()
    via = ['--bootstrap', relay.join]
    put = a.cli('dht', 'put', 'note', 'for tools', '--json').json
    assert tool.cli('dht', 'get', a.pk, 'note', *via, '--json').json['seq'] == put['seq']
    assert tool.cli('entry', 'get', b.pk, *via, '--json').json['entry']['static'] == b.pk
    assert tool.cli('ping', relay.pk, *via, '--json').json['rtt_ms'] >= 0
    assert any(row['public_key'] == relay.pk for row in tool.cli('dht', 'peers', *via, '--json').rows)
    key = tool.dir / 'key'
    pk = tool.cli('keys', 'gen', '-o', key, '--json').json['public_key']
    tool.cli('dht', 'put', 'note', 'mine', '--sk-file', key, *via)
    assert b.cli('dht', 'get', pk, 'note').text.rstrip('\n') == 'mine'
    assert relay.try_cli('entry', 'get', pk).code == 3
