"""Foreign items for somebody else's slot (incident 60), sent as the JSON RPC of docs/protocol/dht.md over real streams."""
import base64
import hashlib
import json
import struct

import pytest
import wire
from net import find_entry, settled

PUT, PUT_BATCH = 4, 6
HIGHEST = 2**64 - 1


def target(pk, salt):
    return hashlib.sha256(bytes.fromhex(pk) + salt.encode()).digest()


def item(key, seq, value, salt, k=None):
    """An item signed by key; with k it claims another signer."""
    value, salt = value.encode(), salt.encode()
    payload = struct.pack('>Q', seq) + struct.pack('>I', len(value)) + value + struct.pack('>I', len(salt)) + salt
    return {'k': k or key.public.hex(), 'seq': seq, 'sig': key.sign(payload).hex(), 'v': base64.b64encode(value).decode(),
            'salt': base64.b64encode(salt).decode()}


def call(node, pk, method, **body):
    """One request in a stream to port 100; the answer, or None when the peer just closed."""
    text = json.dumps(body).encode()
    out = node.try_cli('nc', f'{pk}:100', input=struct.pack('>IB', 1 + len(text), method) + text, timeout=30).out
    if not out:
        return None
    assert struct.unpack('>I', out[:4])[0] == len(out) - 4 and out[4] == method
    return json.loads(out[5:])


def put(node, pk, one, mirror=None):
    extra = {'mirror_target': list(mirror)} if mirror else {}
    return call(node, pk, PUT, sender_id=[0] * 32, sender_pk=node.pk, item=one, **extra)


def everybody_still_gets(nodes, pk, salt, value):
    for node in nodes:
        for how in ([], ['--network']):
            got = node.cli('dht', 'get', pk, salt, *how, '--json').json
            assert (got['value'], got['k']) == (value, pk), (node.name, how)


def test_the_harness_puts_honest_items(pair):
    """Or the tests below would prove nothing."""
    relay, a, b = pair
    key = wire.Key()
    assert put(a, relay.pk, item(key, 5, 'honest', 'note')) == {'stored': True}
    assert b.cli('dht', 'get', key.public.hex(), 'note').text.rstrip('\n') == 'honest'
    refused = put(a, relay.pk, item(key, 5, 'again', 'note'))
    assert refused['stored'] is False and 'sequence number must increase' in refused['error']


@pytest.mark.parametrize('first', ['owner', 'attacker'])
def test_a_foreign_item_never_beats_the_owners(world, pair, first):
    """Mirrored into the slot with the highest seq, singly and in a batch, before and after the owner's own.
    From a node of its own: whoever does this is shunned."""
    relay, a, b = pair
    c = world.node('c', '--bootstrap', relay.join)
    settled([c, b])
    attacker, slot = wire.Key(), target(b.pk, 'note')

    def attack():
        foreign = item(attacker, HIGHEST, 'foreign', 'note')
        claimed = item(attacker, HIGHEST, 'foreign', 'note', k=b.pk)
        for victim in (relay.pk, b.pk):
            put(c, victim, foreign, slot)
            put(c, victim, claimed)
            put(c, victim, claimed, slot)
            call(c, victim, PUT_BATCH, sender_id=[0] * 32, sender_pk=c.pk, items=[foreign, claimed], targets=[list(slot), list(slot)])

    if first == 'attacker':
        attack()
        assert relay.try_cli('dht', 'get', b.pk, 'note').code == 3
    b.cli('dht', 'put', 'note', 'mine')
    if first == 'owner':
        attack()
    everybody_still_gets([relay, a, b], b.pk, 'note', 'mine')
    # The owner's numbers are its own: the attacker's seq did not spoil them.
    assert b.cli('dht', 'put', 'note', 'mine again', '--json').json['seq'] < 2**63
    everybody_still_gets([relay, a, b], b.pk, 'note', 'mine again')
    assert relay.cli('dht', 'status', '--json').json['shunned'] >= 1
    assert c.pk not in {r['public_key'] for r in relay.cli('dht', 'peers', '--json').rows}


def test_a_foreign_entry_is_not_believed(pair):
    """An entry of b that b has not signed, under salt dmsg, by a key that nobody trusts."""
    relay, a, b = pair
    attacker = wire.Key()
    forged = find_entry(a, b.pk)['entry'] | {'sequence': 2**40}
    forged['client'] = {'delegated_servers': [attacker.public.hex()]}
    for value in (json.dumps(forged), json.dumps(forged | {'signature': '00' * 65}), '{}', 'null'):
        for victim in (relay.pk, b.pk):
            put(a, victim, item(attacker, HIGHEST, value, 'dmsg'), target(b.pk, 'dmsg'))
    for node in (relay, a):
        answer = node.cli('entry', 'get', b.pk, '--network', '--json').json
        assert answer['entry']['client']['delegated_servers'] == [relay.pk]
    assert a.cli('ping', b.pk, '--json').json['rtt_ms'] >= 0


def test_a_key_cannot_fill_the_store(pair):
    """The quota of a key holds, others still get in."""
    relay, a, b = pair
    key = wire.Key()
    stored = 0
    for start in range(0, 80, 20):
        items = [item(key, 1, 'x', f'salt {i}') for i in range(start, start + 20)]
        answer = call(a, relay.pk, PUT_BATCH, sender_id=[0] * 32, sender_pk=a.pk, items=items)
        stored += sum(answer['stored'])
    assert stored == 50
    b.cli('dht', 'put', 'note', 'still works')
    assert relay.cli('dht', 'get', b.pk, 'note').text.rstrip('\n') == 'still works'
