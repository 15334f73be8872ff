"""kill -9 and what must survive it: acknowledged items, sequence numbers, the key, the control socket."""
import os
import signal
import threading
import time

import pytest
from net import committed, settled, transfer
from procs import wait_until

# An item acknowledged this long before the kill must be there: the commit interval (50 ms) and what a
# loaded machine adds to it; a slow disk adds its own (see slow_disk).
COMMITTED_S = 0.5
DAY_S = 86400


def put(node, salt, value):
    return node.cli('dht', 'put', salt, value, '--json').json['seq']


def items(node):
    """(key, salt) -> seq of the local store."""
    return {(row['k'], row['salt']): row['seq'] for row in node.cli('dht', 'list', '--json').rows}


def slow_disk(path):
    """Seconds that two commits may take here beside the interval."""
    begin = time.monotonic()
    with open(path / 'fsync', 'wb') as f:
        for _ in range(4):
            f.write(bytes(65536))
            f.flush()
            os.fsync(f.fileno())
    return 2 * (time.monotonic() - begin)


class Writers:
    """Threads that put through the command line until told to stop; remember what was acknowledged, and when."""

    def __init__(self, node, count=2):
        self.node, self.acknowledged, self.on = node, [], True
        self.threads = [threading.Thread(target=self.write, args=(i,)) for i in range(count)]
        for thread in self.threads:
            thread.start()

    def write(self, number):
        n = 0
        while self.on:
            n += 1
            salt = f'w{number}-{n % 40}'  # new ones and newer ones
            result = self.node.try_cli('dht', 'put', salt, f'{n} ' + 'x' * 500, '--json')
            if result.code != 0:
                break
            self.acknowledged.append((time.monotonic(), salt, result.json['seq']))

    def stop(self):
        self.on = False
        for thread in self.threads:
            thread.join()


@pytest.mark.limit(120)
def test_kill_in_the_middle_of_writes(world):
    """Nothing acknowledged more than one commit interval ago is lost, three times in a row."""
    node = world.node('one', '--full', '--listen', '127.0.0.1:0')
    for run in range(3):
        writers, margin = Writers(node), COMMITTED_S + slow_disk(node.dir)

        def durable(now):
            return [(salt, seq) for when, salt, seq in writers.acknowledged if when < now - margin]

        wait_until(lambda: len(durable(time.monotonic())) > 20, 30, 'enough was written')
        time.sleep(0.017 * run)  # at different points of the interval
        killed = time.monotonic()
        node.kill()
        writers.stop()
        node.up()
        have = items(node)
        lost = [(salt, seq) for salt, seq in durable(killed) if have.get((node.pk, salt), -1) < seq]
        assert not lost
    node.stop()
    assert 'corrupt' not in world.place('check').cli('store', 'verify', '--store', node.store).text.lower()


def test_everything_is_there_after_an_orderly_stop(world):
    """A stop syncs: also what was acknowledged a moment ago."""
    node = world.node('one', '--full', '--listen', '127.0.0.1:0')
    seqs = {f's{i}': put(node, f's{i}', 'x') for i in range(10)}
    node.stop()
    node.up()
    have = items(node)
    assert {salt: have.get((node.pk, salt)) for salt in seqs} == seqs


@pytest.mark.parametrize('how', ['stop', 'kill'])
@pytest.mark.parametrize('clock_s', [0, -DAY_S, -20 * 365 * DAY_S])
def test_seq_continues_after_restart(world, how, clock_s):
    """Also with the clock set back, and with nobody there who could tell."""
    node = world.node('one', '--full', '--listen', '127.0.0.1:0')
    first = put(node, 'note', 'first')
    committed(node)
    getattr(node, how)()
    node.env['KADMSG_TEST_CLOCK_OFFSET_S'] = str(clock_s)
    node.up()
    second = put(node, 'note', 'second')
    assert second > first
    assert node.cli('dht', 'get', node.pk, 'note').text.rstrip('\n') == 'second'


@pytest.mark.parametrize('clock_s', [0, -DAY_S])
def test_seq_continues_with_an_emptied_store(world, relay, clock_s):
    """The network is asked for the highest own sequence number."""
    visor = world.node('visor', '--bootstrap', relay.join)
    settled([relay, visor])
    first = put(visor, 'note', 'first')
    entry_seq = items(relay)[(visor.pk, 'dmsg')]
    visor.kill()
    for path in visor.store.iterdir():
        path.unlink()
    visor.env['KADMSG_TEST_CLOCK_OFFSET_S'] = str(clock_s)
    visor.up()
    # The entry published at start climbs too, or the new one would never be taken.
    wait_until(lambda: items(relay)[(visor.pk, 'dmsg')] > entry_seq, 30, 'a newer entry')
    assert put(visor, 'note', 'second') > first
    assert relay.cli('dht', 'get', visor.pk, 'note').text.rstrip('\n') == 'second'


def test_a_clock_far_ahead_does_not_poison_the_key(world, relay):
    """One run in ten years' time; then the clock is right again, and publishing goes on above it."""
    visor = world.make('visor', '--bootstrap', relay.join, env={'KADMSG_TEST_CLOCK_OFFSET_S': str(3650 * DAY_S)}).up()
    settled([relay, visor])
    ahead = put(visor, 'note', 'from the future')
    visor.stop()
    visor.env['KADMSG_TEST_CLOCK_OFFSET_S'] = '0'
    visor.up()
    settled([relay, visor])
    assert put(visor, 'note', 'present') > ahead
    assert relay.cli('dht', 'get', visor.pk, 'note').text.rstrip('\n') == 'present'


def test_restart_of_a_visor(pair):
    relay, a, b = pair
    a.kill()
    a.up()
    settled([relay, a, b])
    assert a.cli('ping', b.pk, '--json').json['rtt_ms'] >= 0


def test_the_relay_dies_and_comes_back(pair, tmp_path):
    """kill -9: items and seqs are there at once, nodes come back by themselves, look-ups and transfers work."""
    relay, a, b = pair
    path = tmp_path / 'data'
    path.write_bytes(bytes(range(256)) * 4096)
    seqs = {node.pk: put(node, 'note', node.name) for node in (a, b)}
    before = items(relay)
    committed(relay)
    relay.kill()
    relay.up()
    after = items(relay)
    assert {key: seq for key, seq in before.items() if after.get(key, -1) < seq} == {}
    for node in (a, b):
        assert after[(node.pk, 'note')] == seqs[node.pk]
    for node in (a, b):
        wait_until(lambda n=node: n.status['sessions'] >= 1, 30, f'{node.name} is back')
    settled([relay, a, b])
    assert a.cli('dht', 'get', b.pk, 'note', '--network').text.rstrip('\n') == 'b'
    assert transfer(a, b, path, 1234) == path.stat().st_size


def test_the_relay_dies_three_times(pair):
    """Sessions that end again and again are a restarting relay, not a twin that has our key."""
    relay, a, b = pair
    for _ in range(3):
        relay.kill()
        relay.up()
        for node in (a, b):
            wait_until(lambda n=node: n.status['sessions'] >= 1, 25, f'{node.name} is back')
    settled([relay, a, b])


@pytest.mark.limit(120)
def test_a_second_full_node_takes_over(world, pair, tmp_path):
    """It joins, syncs the data set; the first one is stopped, and everything is still found."""
    relay, a, b = pair
    put(a, 'note', 'of a')
    put(b, 'note', 'of b')
    second = world.node('second', '--full', '--listen', '127.0.0.1:0', '--bootstrap', relay.join)
    wait_until(lambda: set(items(second)) >= set(items(relay)), 30, 'second full node has everything')
    for node in (a, b):
        wait_until(lambda n=node: n.status['sessions'] >= 2, 60, f'{node.name} has a session to the second relay')
    settled([a, b], via=second)
    relay.stop()
    tool = world.place()
    for node in (a, b):
        assert tool.cli('entry', 'get', node.pk, '--bootstrap', second.join, '--json').json['entry']['static'] == node.pk
        assert tool.cli('dht', 'get', node.pk, 'note', '--bootstrap', second.join).text.rstrip('\n') == f'of {node.name}'
    settled([second, a, b])
    assert a.cli('dht', 'get', b.pk, 'note', '--network').text.rstrip('\n') == 'of b'
    path = tmp_path / 'data'
    path.write_bytes(b'after the first relay' * 5000)
    assert transfer(a, b, path, 1234) == path.stat().st_size


def test_stop_takes_a_moment_only(pair):
    """SIGTERM and SIGINT end every role, also while others hold sessions to it."""
    relay, a, b = pair
    a.stop(timeout=10)
    b.proc.signal(signal.SIGINT)
    assert b.proc.wait(10) == 0
    relay.stop(timeout=10)
