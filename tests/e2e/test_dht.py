"""The dht and entry commands."""
import pytest
from net import delegated, find_entry
from procs import wait_until


def put(node, *args, **kwargs):
    return node.cli('dht', 'put', *args, '--json', **kwargs).json


def get(node, pk, *args):
    return node.cli('dht', 'get', pk, *args, '--json').json


def test_put_and_get(pair):
    _, a, b = pair
    first = put(a, 'note', 'one')
    assert first['stored'] >= 1 and len(first['target']) == 64
    got = get(b, a.pk, 'note', '--network')
    assert got['source'] == 'dht' and got['value'] == 'one' and got['asked'] >= 1 and got['hops'] >= 1 and got['ms'] >= 0
    assert get(a, a.pk, 'note')['source'] == 'local'
    second = put(a, 'note', 'two')
    assert second['seq'] > first['seq'] and second['target'] == first['target']
    assert get(b, a.pk, 'note', '--network')['value'] == 'two'


@pytest.mark.parametrize('value', [b'', b'\xff\x00\xfe', 'Zürich "\\\n\t'.encode(), b'x' * 60_000], ids=['empty', 'bytes', 'text', 'big'])
def test_values(pair, value):
    import base64
    _, a, b = pair
    put(a, 'note', '-', input=value)
    assert b.cli('dht', 'get', a.pk, 'note').out in (value, value + b'\n')
    got = get(b, a.pk, 'note')
    read = base64.b64decode(got['value_base64']) if 'value_base64' in got else got['value'].encode()
    assert read == value


def test_a_value_that_is_too_long_is_refused(pair):
    _, a, b = pair
    result = a.cli('dht', 'put', 'note', '-', input=b'x' * 70_000, code=1)
    assert result.out == b'' and result.err.strip()
    b.cli('dht', 'get', a.pk, 'note', code=3)


def test_seq(pair):
    """An older seq never wins, the same one with other bytes neither."""
    _, a, b = pair
    now = put(a, 'note', 'now')['seq']
    forced = put(a, 'note', 'later', '--seq', now + 10)
    assert forced['seq'] == now + 10
    for seq in (now + 10, now, 0):
        result = a.try_cli('dht', 'put', 'note', 'older', '--seq', seq)
        assert result.code in (1, 4) and result.err.strip()
    assert get(b, a.pk, 'note', '--network')['value'] == 'later'
    assert put(a, 'note', 'next')['seq'] > now + 10


def test_owners_slot_is_the_owners(pair):
    """Another key's item under the same salt is another target."""
    _, a, b = pair
    mine, other = put(a, 'note', 'mine'), put(b, 'note', 'other', '--seq', 2**63)
    assert mine['target'] != other['target']
    assert get(b, a.pk, 'note', '--network')['value'] == 'mine'
    assert get(a, b.pk, 'note', '--network')['value'] == 'other'


def test_list(pair):
    relay, a, _ = pair
    done = put(a, 'note', 'value')
    rows = relay.cli('dht', 'list', '--json').rows
    mine = [row for row in rows if row['target'] == done['target']]
    assert len(mine) == 1 and {k: mine[0][k] for k in ('k', 'seq', 'salt')} == {'k': a.pk, 'seq': done['seq'], 'salt': 'note'}
    assert mine[0]['size'] > 0 and len(rows) >= 3
    assert [r['target'] for r in relay.cli('dht', 'list', '--salt', 'note', '--json').rows] == [done['target']]
    assert relay.cli('dht', 'list', '--salt', 'nothing', '--json').rows == []
    wait_until(lambda: relay.status['stored_items'] == len(relay.cli('dht', 'list', '--json').rows), 10, 'status agrees')


def test_list_for_people(relay):
    """Every digit of a sequence number, and no control character of a salt that a stranger chose."""
    for salt, seq in [('plain', 1795187717454510794), ('top', 2**64 - 1), ('\x1b]0;title\a', 7), ('\x9b2J', 8)]:
        relay.cli('dht', 'put', salt, 'value', '--seq', seq)
    text = relay.cli('dht', 'list').text
    for line in ('seq 1795187717454510794  plain  ', 'seq 18446744073709551615  top  ', 'seq 7  ?]0;title?  ', 'seq 8  ??2J  '):
        assert line in text


@pytest.mark.parametrize('command', [['put', 'a\udcff', 'value'], ['get', None, 'a\udcff'], ['list', '--salt', 'a\udcff']], ids=lambda c: c[0])
def test_salt_that_is_no_text(relay, command):
    result = relay.cli('dht', *[relay.pk if c is None else c for c in command], code=2)
    assert result.out == b'' and 'SALT: not UTF-8 text' in result.err


def test_list_longer_than_a_page(relay):
    for i in range(300):
        relay.cli('dht', 'put', f'note {i}', 'x' * 100)
    rows = relay.cli('dht', 'list', '--json').rows
    salts = {row['salt'] for row in rows}
    assert salts >= {f'note {i}' for i in range(300)} and len(rows) == len({row['target'] for row in rows})


def test_peers(pair):
    relay, a, b = pair
    rows = wait_until(lambda: [r for r in relay.cli('dht', 'peers', '--json').rows if r['public_key'] in (a.pk, b.pk)], 10, 'peers')
    for row in rows:
        assert set(row) >= {'public_key', 'node_id', 'bucket', 'last_seen_ms', 'dialect'}
        assert row['dialect'] in ('json', 'msgpack') and 0 <= row['bucket'] < 256 and row['last_seen_ms'] >= 0
    assert relay.pk in {r['public_key'] for r in a.cli('dht', 'peers', '--json').rows}


def test_status(pair):
    relay, _, _ = pair
    assert relay.cli('dht', 'status', '--json').json


def test_why(pair):
    """Everything that was tried, found or not."""
    _, a, b = pair
    steps = a.cli('dht', 'why', b.pk, '--json').json['steps']
    assert steps and all(isinstance(step, dict) for step in steps)
    nobody = a.cli('keys', 'gen', '--json').json['public_key']
    unknown = a.try_cli('dht', 'why', nobody, '--json')
    assert unknown.code in (0, 3, 6) and unknown.json['steps']


def test_del(pair):
    """What stands for nothing depends on the namespace; the number of peers that took it is told."""
    _, a, b = pair
    for salt, nothing in (('note', ''), ('tp', '[]')):
        before = put(a, salt, 'something')
        done = a.cli('dht', 'del', salt, '--json').json
        assert done['seq'] > before['seq'] and done['target'] == before['target'] and done['stored'] >= 1
        assert get(b, a.pk, salt, '--network')['value'] == nothing
    for salt in ('svc:vpn', 'addr:stcpr', 'dmsg-server'):
        put(a, salt, '{"port":"1"}')
        a.cli('dht', 'del', salt)
        b.cli('dht', 'get', a.pk, salt, '--network', code=3)
    a.cli('dht', 'del', 'x' * 201, code=2)
    a.cli('dht', 'del', code=2)


def test_lookup(pair):
    """The report, of what was found and of what was not."""
    relay, a, b = pair
    done = put(a, 'note', 'value')
    found = b.cli('dht', 'lookup', a.pk, 'note', '--json').json
    assert found['target'] == done['target'] and found['found'] is True and found['seq'] == done['seq'] and found['k'] == a.pk
    assert found['size'] == 5 and found['steps'] == [] and found['end'] and found['bytes'] > 0
    assert found['asked'] >= found['answered'] >= 1 and found['hops'] >= 1 and found['failed'] == found['asked'] - found['answered']
    nodes = b.cli('dht', 'lookup', done['target'], '--trace', '--json').json
    asked = {s['public_key']: s for s in nodes['steps']}
    assert relay.pk in asked and asked[relay.pk]['hop'] == 1 and asked[relay.pk]['result'] == 'answered' and b.pk not in asked
    assert len(asked) == nodes['asked'] and set(nodes['closest']) <= set(asked) and nodes['target'] == done['target']
    assert b.cli('dht', 'lookup', a.pk, '--json').json['target'] == b.cli('dht', 'lookup', a.pk, '', '--json', code=3).json['target']
    missing = b.cli('dht', 'lookup', a.pk, 'no such note', '--trace', '--json', code=3).json
    assert missing['found'] is False and missing['exit'] == 3 and relay.pk in {s['public_key'] for s in missing['steps']}
    assert b'asked' in b.cli('dht', 'lookup', a.pk, 'note', '--trace').out
    for wrong in ('', 'ab', done['target'][1:], done['target'] + '0'):
        b.cli('dht', 'lookup', wrong, code=2)
    b.cli('dht', 'lookup', done['target'], 'note', code=2)


def test_sync(pair):
    """A regular node takes what a full one holds; one namespace alone; peers that are none."""
    relay, a, b = pair
    done = [put(a, salt, 'value')['target'] for salt in ('note', 'other')]
    pulled = b.cli('dht', 'sync', '--salt', 'note', '--json').json
    assert pulled['pulled'] >= 0 and pulled['pushed'] == 0 and pulled['pages'] >= 1 and pulled['bytes'] > 0
    assert done[0] in {r['target'] for r in b.cli('dht', 'list', '--json').rows}
    both = b.cli('dht', 'reconcile', relay.pk, '--json').json
    assert both['pages'] >= 1
    here = {r['target'] for r in b.cli('dht', 'list', '--json').rows}
    assert here >= set(done) and here >= {r['target'] for r in relay.cli('dht', 'list', '--json').rows}
    assert b'pulled' in b.cli('dht', 'sync', relay.pk).out
    b.cli('dht', 'sync', b.pk, code=2)
    b.cli('dht', 'reconcile', code=2)
    nobody = a.cli('keys', 'gen', '--json').json['public_key']
    assert b.try_cli('dht', 'reconcile', nobody, '--timeout', 5).code in (3, 5, 6)


def test_reconcile_of_full_nodes_goes_both_ways(world, relay):
    """Two full nodes that were apart hold the same afterwards."""
    other = world.node('other', '--full', '--bootstrap', relay.join)
    relay.cli('dht', 'put', 'note', 'of the relay')
    other.cli('dht', 'put', 'note', 'of the other')
    other.cli('dht', 'reconcile', relay.pk)
    for node in (relay, other):
        owners = {r['k'] for r in node.cli('dht', 'list', '--salt', 'note', '--json').rows}
        assert owners == {relay.pk, other.pk}


def test_entry_is_signed_and_names_its_relays(pair):
    relay, a, b = pair
    answer = find_entry(b, a.pk)
    assert delegated(answer) == [relay.pk] and answer['entry']['timestamp'] > 0
    server = find_entry(a, relay.pk)['entry']['server']
    assert server['address'] == relay.relay


def test_entry_publish(pair):
    """Publishing again is a newer item."""
    _, a, b = pair
    before = get(a, a.pk, 'dmsg')['seq']
    a.cli('entry', 'publish')
    wait_until(lambda: get(b, a.pk, 'dmsg', '--network')['seq'] > before, 10, 'newer entry')


def test_text_output_is_for_people(pair):
    relay, a, b = pair
    a.cli('dht', 'put', 'note', 'x')
    for args in (['status'], ['dht', 'peers'], ['dht', 'list'], ['dht', 'status'], ['dht', 'why', b.pk], ['entry', 'get', b.pk],
                 ['ping', b.pk]):
        assert a.cli(*args).text.strip(), args
