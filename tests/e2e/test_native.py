"""The dialect between nodes of our own, watches over it, and networks kept apart by name."""
import signal

from procs import wait_until

JSON_AND_NATIVE = {'json', 'msgpack'}


def lines(process):
    return process.out_path.read_text().splitlines()


def test_dialect(pair):
    """Nodes of our own come to speak MessagePack, which then carries their calls."""
    relay, a, b = pair

    def native(node, other):
        return [r for r in node.cli('dht', 'peers', '--json').rows if r['public_key'] == other.pk and r['dialect'] == 'msgpack']

    wait_until(lambda: native(a, relay) and native(relay, a), 60, 'native peers')
    a.cli('dht', 'put', 'native', 'x')
    assert b.cli('dht', 'get', a.pk, 'native', '--json').json['value'] == 'x'
    status = a.cli('dht', 'status', '--json').json
    assert status['dialects']['msgpack_calls'] > 0 and status['dialects']['fallbacks'] == 0
    assert {r['dialect'] for r in a.cli('dht', 'peers', '--json').rows} <= JSON_AND_NATIVE


def test_watch(pair):
    """Present value, changes in their order, the end of the value; as text and as JSON; it ends on a signal."""
    relay, a, b = pair
    a.cli('dht', 'put', 'watched', 'one')
    text = b.start('dht', 'watch', a.pk, 'watched', '--count', '3')
    rows = relay.start('dht', 'watch', a.pk, 'watched', '--json')
    wait_until(lambda: lines(text) and lines(rows), 60, 'the present value')
    a.cli('dht', 'put', 'watched', 'two')
    wait_until(lambda: len(lines(text)) == 2, 90, 'the first change')
    a.cli('dht', 'put', 'watched', 'three')
    text.finish(90)
    assert [line.split('  ')[1] for line in lines(text)] == ['one', 'two', 'three']
    wait_until(lambda: 'three' in lines(rows)[-1], 90, 'the last change as JSON')
    rows.signal(signal.SIGTERM)
    rows.wait()
    wait_until(lambda: relay.cli('dht', 'status', '--json').json['watch']['watches'] == 0, 60, 'the end of the watch')


def test_networks(world, relay):
    """A node under another name joins nobody, gets nothing, and is told why; the same name joins."""
    relay.cli('dht', 'put', 'note', 'of the default network')
    other = world.make('other')
    other.flags += ['--network', 'elsewhere', '--bootstrap', relay.join]
    other.up()
    wait_until(lambda: relay.cli('dht', 'status', '--json').json['refused_network'] > 0, 60, 'refusals')
    assert other.status['routing_peers'] == 0
    assert other.cli('dht', 'get', relay.pk, 'note', code=6).out == b''
    assert other.pk not in {r['public_key'] for r in relay.cli('dht', 'peers', '--json').rows}
    outside = world.place().cli('dht', 'get', relay.pk, 'note', '--bootstrap', relay.join, '--network-name', 'elsewhere', code=4)
    assert 'another network' in outside.err
    other.stop()
    named = world.make('named', '--full', '--listen', '127.0.0.1:0', '--network', 'elsewhere').up()
    named.cli('dht', 'put', 'note', 'of elsewhere')
    inside = world.place().cli('dht', 'get', named.pk, 'note', '--bootstrap', named.join, '--network-name', 'elsewhere')
    assert inside.out == b'of elsewhere'
    # what belongs to one network is not opened by another
    named.stop()
    named.flags = named.flags[:-2]
    named.begin()
    assert named.proc.wait() != 0 and 'another network' in named.proc.log
