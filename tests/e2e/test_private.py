"""Private networks: whose items nodes take, and to whom they give values; the full-node switch."""
import json

from net import settled
from procs import wait_until


def stored(node, salt):
    return {row['k'] for row in node.cli('dht', 'list', '--salt', salt, '--json').rows}


def test_writers(world):
    """Only the listed key writes under the limited salts; others go on as before."""
    relay = world.make('relay', '--full', '--listen', '127.0.0.1:0')
    a, b = world.make('a'), world.make('b')
    relay.flags += ['--allow-writer', f'tp={a.pk}', '--allow-writer', f'opaque={a.pk}']
    relay.up()
    for node in (a, b):
        node.flags += ['--bootstrap', relay.join]
        node.up()
    settled([relay, a, b])
    assert a.cli('dht', 'put', 'note', 'mine', '--json').json['stored'] >= 1
    b.try_cli('dht', 'put', 'note', 'foreign', '--json')
    b.try_cli('dht', 'put', 'tp', '[]', '--json')
    assert b.cli('dht', 'put', 'addr:stcpr', '{"port":"1"}', '--json').json['stored'] >= 1
    assert stored(relay, 'note') == {a.pk} and stored(relay, 'tp') == set() and stored(relay, 'addr:stcpr') == {b.pk}
    assert relay.cli('dht', 'status', '--json').json['refused']['writer'] >= 2


def test_readers(world):
    """Values go to the listed keys; everybody is routed. From a configuration file."""
    relay = world.make('relay', '--full', '--listen', '127.0.0.1:0')
    a, b = world.make('a'), world.make('b')
    config = relay.dir / 'config.json'
    config.write_text(json.dumps({'allow-reader': [a.pk]}))
    relay.flags += ['--config', config]
    relay.up()
    relay.cli('dht', 'put', 'note', 'value')  # nobody else is there to be given it
    for node in (a, b):
        node.flags += ['--bootstrap', relay.join]
        node.up()
    for node in (a, b):
        wait_until(lambda n=node: n.status['routing_peers'] > 0, 30, f'{node.name} has a peer')
    assert relay.pk in {r['public_key'] for r in b.cli('dht', 'peers', '--json').rows}
    before = relay.cli('dht', 'status', '--json').json['refused']['reader']
    b.cli('dht', 'get', relay.pk, 'note', '--network', code=3)
    assert relay.cli('dht', 'status', '--json').json['refused']['reader'] > before
    assert a.cli('dht', 'get', relay.pk, 'note', '--network', '--json').json['value'] == 'value'
    assert a.pk in {r['public_key'] for r in relay.cli('dht', 'peers', '--json').rows}


def test_bad_lists(world):
    node = world.make('node')
    for text in ('tp', '=x', 'tp=', f'nothing={node.pk}', 'tp=zz', f'={node.pk}'):
        result = node.cli('node', '--allow-writer', text, code=2)
        assert 'allow-writer' in result.err
    node.cli('node', '--allow-reader', 'zz', code=2)


def test_full_switch(pair):
    """A regular node becomes a full one while it runs, takes everything, says so, and goes back."""
    relay, a, b = pair
    for i in range(20):
        relay.cli('dht', 'put', f'note {i}', 'value')
    assert a.cli('dht', 'full', '--json').json == {'full_node': False}
    assert a.cli('dht', 'full', 'on', '--json').json == {'full_node': True}
    wait_until(lambda: len(a.cli('dht', 'list', '--json').rows) >= len(relay.cli('dht', 'list', '--json').rows) > 20, 40, 'synced')
    wait_until(lambda: a.pk in stored(relay, 'fullnode'), 30, 'advertised')
    assert a.cli('dht', 'status', '--json').json['full_node'] is True
    assert b'off' in a.cli('dht', 'full', 'off').out
    assert a.cli('dht', 'status', '--json').json['full_node'] is False
    a.cli('dht', 'full', 'maybe', code=2)
