"""Full nodes of one host that share one store."""
from net import committed
from procs import wait_until


def rows(node, salt='note'):
    return {row['target']: row['seq'] for row in node.cli('dht', 'list', '--salt', salt, '--json').rows}


def test_two_full_nodes_share_a_store(world, relay):
    """What one takes the other has, also after one was killed; a regular node stays outside."""
    twin = world.make('twin', '--full', '--listen', '127.0.0.1:0', '--bootstrap', relay.join)
    twin.store = relay.store
    twin.up()
    for node in (relay, twin):
        assert node.status['store']['shared'] is True and node.status['store']['busy_pid'] == 0
    first = relay.cli('dht', 'put', 'note', 'one', '--json').json
    second = twin.cli('dht', 'put', 'note', 'two', '--json').json
    want = {first['target']: first['seq'], second['target']: second['seq']}
    for node in (relay, twin):
        wait_until(lambda n=node: rows(n) == want, 20, f'{node.name} has both')
    assert twin.cli('dht', 'get', relay.pk, 'note', '--json').json['value'] == 'one'
    committed(relay)
    committed(twin)
    wait_until(lambda: relay.status['stored_items'] == twin.status['stored_items'], 20, 'one count')

    twin.kill()
    newer = relay.cli('dht', 'put', 'note', 'three', '--json').json
    twin.up()
    wait_until(lambda: rows(twin).get(newer['target']) == newer['seq'] and second['target'] in rows(twin), 20, 'the twin is back')
    assert twin.try_cli('dht', 'full', 'off').code != 0 and twin.cli('dht', 'status', '--json').json['full_node'] is True

    regular = world.make('regular', '--bootstrap', relay.join)
    regular.store = relay.store
    refused = regular.try_cli('node', '--sk-file', regular.sk_file, '--store', regular.store, '--bootstrap', relay.join)
    assert refused.code != 0 and str(relay.store) in refused.err
    stranger = world.make('stranger')
    refused = stranger.try_cli('node', '--sk-file', stranger.sk_file, '--store', relay.store, '--full',
                               '--listen', '127.0.0.1:0', '--network', 'elsewhere')
    assert refused.code != 0 and 'another network' in refused.err
    relay.stop()
    twin.stop()
    assert 'corrupt' not in world.place('check').cli('store', 'verify', '--store', relay.store).text.lower()
