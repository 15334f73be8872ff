"""Thirty nodes, three of them full and relays, while some are killed and come back: what was acknowledged more than one
commit interval before its holder was killed is found, and every store is clean.

Ten rounds of 2000 puts by 500 keys, four slots each; in every round three nodes are killed when a fifth of it is
acknowledged. One more publisher and reader speaks JSON only. KADMSG_SEED repeats the choice of the nodes.
"""
import concurrent.futures
import os
import queue
import random
import subprocess
import threading
import time

import pytest
from ctl_socket import CtlSocket, Refused
from net import committed
from procs import Failed, wait_until
from test_hostile_puts import call, item, put, target
from test_restart import COMMITTED_S, slow_disk
from wire import Key

FOUND_S = 180
GET = 3
NODES, FULL, KEYS, SLOTS, ROUNDS, KILLS = 30, 3, 500, 4, 10, 3
SEED = int(os.environ.get('KADMSG_SEED') or random.SystemRandom().getrandbits(32))


class Puts:
    """`kadmsg-load puts`: who publishes."""

    def __init__(self, world, relay, key, nodes):
        program = world.program.parent / 'kadmsg-load'
        argv = [program, 'puts', '--addr', relay.relay, '--pk', relay.pk, '--keys', str(KEYS), '--slots', str(SLOTS)]
        self.proc = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.lines, self.keys, self.acks = queue.Queue(), {}, []
        threading.Thread(target=self.read, daemon=True).start()
        self.say(f'{key.secret:064x}', *(node.pk for node in nodes), '')
        self.until('ready')

    def read(self):
        for line in self.proc.stdout:
            self.lines.put(line.split())
        self.lines.put(['end'])

    def say(self, *lines):
        self.proc.stdin.write(''.join(line + '\n' for line in lines))
        self.proc.stdin.flush()

    def take(self, timeout=120):
        word, *rest = self.lines.get(timeout=timeout)
        if word == 'key':
            self.keys[int(rest[0])] = rest[1]
        elif word == 'ack':
            self.acks.append(tuple(map(int, rest)))
        elif word == 'end':
            raise Failed('kadmsg-load has ended')
        return word

    def until(self, word):
        while self.take() != word:
            pass

    def close(self):
        self.proc.stdin.close()
        try:
            self.proc.wait(30)
        finally:
            self.proc.kill()


class JsonOnly:
    """Publishes one slot and reads others with the JSON RPC of docs/protocol/dht.md, one stream a call."""
    SALT = 'by json'

    def __init__(self, nodes):
        self.nodes, self.key, self.round = nodes, Key(), 0
        self.pk = self.key.public.hex()

    def closest(self, pk, salt):
        """Nodes, the closest to a slot first."""
        at = int.from_bytes(target(pk, salt), 'big')
        return sorted(self.nodes, key=lambda n: at ^ int.from_bytes(target(n.pk, ''), 'big'))

    def through(self, node):
        """Some other one, whose session it uses."""
        return next(n for n in self.nodes[FULL:] if n is not node)

    def publish(self):
        """Three holders say that they have it; some nodes may be on their way back."""
        self.round += 1
        one = item(self.key, time.time_ns(), f'round {self.round}', self.SALT)

        def stored():
            answers = [put(self.through(n), n.pk, one) for n in self.closest(self.pk, self.SALT)[:5]]
            return sum(bool(a) and (a['stored'] or 'increase' in a['error']) for a in answers) >= 3
        wait_until(stored, 120, 'three holders of what was put as JSON')

    def reads(self, pk, salt):
        """Some holder gives an item."""
        def got():
            for n in self.closest(pk, salt)[:5]:
                answer = call(self.through(n), n.pk, GET, sender_id=[0] * 32, sender_pk=n.pk,
                              target=list(target(pk, salt)))
                if answer and answer.get('item') and answer['item']['k'] == pk:
                    return True
            return False
        wait_until(got, 120, 'an item read as JSON')


def start(world, key):
    """Relays first, then everybody else at the same time."""
    trust = ('--trusted', key.public.hex(), '--pk-threads', '1')
    relays = []
    for i in range(FULL):
        joins = [x for r in relays for x in ('--bootstrap', r.join)]
        relays.append(world.node(f'full{i}', '--full', '--listen', '127.0.0.1:0', '--workers', '1', *joins, *trust))
    joins = [x for r in relays for x in ('--bootstrap', r.join)]
    others = [world.make(f'node{i}', *joins, *trust).begin() for i in range(NODES - FULL)]
    for node in others:
        node.proc.wait_ready(120)
    return relays + others


def mishap(rng, nodes, kills):
    """Some nodes die at once, and come back."""
    for i in rng.sample(range(NODES), KILLS):
        kills.append((i, now_ms()))
        nodes[i].kill()
        kills.append((i, now_ms()))
        nodes[i].begin()
        nodes[i].proc.wait_ready(120)


def now_ms():
    return int(time.monotonic() * 1000)


def required(acks, kills, margin_ms):
    """(key, slot) -> the newest number that must have survived."""
    newest = {}
    for key, slot, seq, node, ms in acks:
        if any(k == node and ms - margin_ms < at < ms + margin_ms for k, at in kills):
            continue
        newest[key, slot] = max(seq, newest.get((key, slot), 0))
    return newest


def missing(node, wanted, keys):
    """Those of wanted that this node does not find in the network, or only older."""
    lost = []
    with CtlSocket(node.proc.ready['control'], timeout=60) as ctl:
        for (key, slot), seq in wanted:
            try:
                answer, _ = ctl.call('dht.get', pk=keys[key], salt=f's{slot}', network=True)
                if int(answer['seq']) < seq:
                    lost.append((key, slot, seq, answer['seq']))
            except Refused as error:
                lost.append((key, slot, seq, str(error)))
    return lost


def find_all(readers, wanted, keys):
    """Every item has one holder only, so it is found when everybody knows again that this one lives; and the holder
    itself asks the others only, so the next reader tries what one did not find."""
    begin, rounds = time.monotonic(), 0
    while wanted:
        with concurrent.futures.ThreadPoolExecutor(len(readers)) as pool:
            parts = [pool.submit(missing, readers[(i + rounds) % len(readers)], wanted[i::len(readers)], keys)
                     for i in range(len(readers))]
            lost = [row for part in parts for row in part.result()]
        if lost and time.monotonic() > begin + FOUND_S:
            raise Failed(f'{len(lost)} items are lost, the first: {lost[:5]}')
        wanted = [((key, slot), seq) for key, slot, seq, _ in lost]
        rounds += 1
    print(f'found after {time.monotonic() - begin:.1f} s, in {rounds} rounds')


@pytest.mark.limit(600)
def test_nothing_acknowledged_is_lost(world):
    print(f'KADMSG_SEED={SEED}')
    rng, key, kills = random.Random(SEED), Key(), []
    nodes = start(world, key)
    margin_ms = 1000 * (COMMITTED_S + slow_disk(nodes[0].dir))
    puts, by_json = Puts(world, nodes[0], key, nodes), JsonOnly(nodes)
    try:
        for _ in range(ROUNDS):
            before = len(puts.acks)
            puts.say('')
            while len(puts.acks) < before + KEYS * SLOTS // 5:
                puts.take()
            mishap(rng, nodes, kills)
            puts.until('round')
            by_json.publish()
    finally:
        puts.close()
    assert len(puts.acks) == ROUNDS * KEYS * SLOTS
    wanted = list(required(puts.acks, kills, margin_ms).items())
    assert len(wanted) == KEYS * SLOTS
    for node in nodes:
        committed(node)
    find_all(nodes[::5], wanted, puts.keys)
    by_json.reads(puts.keys[0], 's0')
    for node in nodes[::5]:
        wait_until(lambda n=node: n.cli('dht', 'get', by_json.pk, by_json.SALT, '--network').text.strip() ==
                   f'round {ROUNDS}', 120, f'{node.name} finds what was put as JSON')
    for node in nodes:
        node.proc.signal(15)
    for node in nodes:
        node.stop(timeout=60)
        text = world.place('check').cli('store', 'verify', '--store', node.store).text.lower()
        assert 'corrupt' not in text, text
