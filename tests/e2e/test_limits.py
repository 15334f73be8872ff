"""Limits: what is too much is refused, and what is there goes on."""
import os
import resource
import socket
import subprocess
import time

import wire
from net import find_entry, received, settled, transfer
from procs import wait_until


def cpu_s(pid):
    fields = open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def test_out_of_descriptors(world, tmp_path):
    """200 connections and 64 descriptors: no spinning, sessions live, and it recovers (incident 88)."""
    relay = world.make('relay', '--full', '--listen', '127.0.0.1:0')
    relay.limits.append(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    relay.up()
    a, b = (world.node(name, '--bootstrap', relay.join) for name in 'ab')
    settled([relay, a, b])
    host, _, port = relay.relay.rpartition(':')
    flood = [socket.create_connection((host, int(port)), timeout=20) for _ in range(200)]
    before, begin = cpu_s(relay.proc.pid), time.monotonic()
    time.sleep(2)
    used, lasted = cpu_s(relay.proc.pid) - before, time.monotonic() - begin
    assert used < lasted / 2, f'{used} s of CPU in {lasted} s'
    assert len(relay.proc.log.splitlines()) < 200
    assert a.cli('ping', relay.pk, '--json').json['rtt_ms'] >= 0
    for s in flood:
        s.close()
    path = tmp_path / 'data'
    path.write_bytes(bytes(100_000))
    assert transfer(a, b, path, 1234) == 100_000
    wait_until(lambda: world.place().try_cli('ping', relay.pk, '--bootstrap', relay.join).code == 0, 20, 'new sessions')


def test_silent_dht_streams(pair):
    """Streams to the DHT port that never say what they want do not keep others from being served (incident 62)."""
    relay, a, b = pair
    silent = [a.start('nc', f'{relay.pk}:100', stdin=subprocess.PIPE) for _ in range(20)]
    for i, proc in enumerate(silent):
        proc.popen.stdin.write(b'\0\0\0\0'[:i % 5])
        proc.popen.stdin.flush()
    def serving():
        return relay.cli('dht', 'status', '--json').json['streams']['serving']

    wait_until(lambda: serving() >= 5, 20, 'they are there')
    assert b.cli('dht', 'get', a.pk, 'dmsg', '--network', '--json').json['source'] == 'dht'
    wait_until(lambda: serving() == 0, 30, 'all of them are ended')
    assert a.cli('dht', 'get', b.pk, 'dmsg', '--network', '--json').json['source'] == 'dht'


def test_a_reader_that_does_not_read(pair, tmp_path):
    """One stalled stream takes a window at each end, not the relay, and others between the same nodes go on."""
    relay, a, b = pair
    listener = b.start('nc', '-l', 1111, '--ready', stdin=subprocess.PIPE)
    listener.wait_ready()
    # Its output goes nowhere from now on: the process is stopped.
    os.kill(listener.pid, 19)
    big = tmp_path / 'big'
    big.write_bytes(bytes(32 << 20))
    with open(big, 'rb') as data:
        stalled = a.start('nc', f'{b.pk}:1111', stdin=data)
    small = tmp_path / 'small'
    small.write_bytes(bytes(1 << 20))
    for _ in range(3):
        assert transfer(a, b, small, 2222) == 1 << 20
    assert relay.status['relay']['buffered'] < 8 << 20
    assert stalled.running
    os.kill(listener.pid, 18)
    listener.popen.stdin.close()
    stalled.finish()
    listener.finish()
    assert len(received(listener)) == 32 << 20


def test_commands_while_the_node_starts_and_stops(world, relay):
    """Whatever the state of the node: an answer or a refusal, never a hang or a crash (incident 80)."""
    node = world.make('one', '--bootstrap', relay.join)
    for how in ('stop', 'kill'):
        node.begin()
        codes = [node.try_cli(*args, '--timeout', '5').code for _ in range(5)
                 for args in (['status'], ['dht', 'list'], ['dht', 'peers'], ['entry', 'get', relay.pk], ['dht', 'put', 'note', 'x'])]
        assert set(codes) <= {0, 1, 3, 5, 6}, codes
        node.proc.wait_ready()
        asked = [node.start('entry', 'get', relay.pk, '--network') for _ in range(5)]
        if how == 'stop':
            node.stop()
        else:
            node.kill()
        assert {proc.result().code for proc in asked} <= {0, 1, 3, 5, 6}


def test_output_that_nobody_reads(relay):
    """A closed pipe ends the command, silently or with a failure, and leaves the node alone."""
    for i in range(50):
        relay.cli('dht', 'put', f'note {i}', 'x' * 1000)
    command = subprocess.Popen([str(relay.world.program), 'dht', 'list', '--json'], env=relay.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    command.stdout.readline()
    command.stdout.close()
    command.wait(20)
    assert relay.status['public_key'] == relay.pk


def test_a_tool_that_listens(world, pair):
    """nc -l under a key of its own: reachable by its entry while it runs, gone afterwards."""
    relay, a, _ = pair
    tool = world.place()
    key = tool.dir / 'key'
    pk = tool.cli('keys', 'gen', '-o', key, '--json').json['public_key']
    listener = tool.start('nc', '-l', 1234, '--echo', '--ready', '--sk-file', key, '--bootstrap', relay.join)
    assert listener.wait_ready()['public_key'] == pk
    wait_until(lambda: a.try_cli('nc', f'{pk}:1234', input=b'hello').out == b'hello', 20, 'echo')
    listener.stop()
    wait_until(lambda: a.try_cli('entry', 'get', pk, '--network').code == 3, 20, 'entry withdrawn')


def test_sessions_come_and_go(pair):
    """Forty sessions of a sudden; the gauges come back to what they were."""
    relay, a, b = pair
    before = relay.status['relay']['sessions']
    sessions = [wire.Session(relay.join) for _ in range(40)]
    assert all(session.alive() for session in sessions[::10])
    wait_until(lambda: relay.status['relay']['sessions'] == before + 40, 10, 'all are there')
    assert find_entry(b, a.pk)
    for session in sessions:
        session.close()
    wait_until(lambda: relay.status['relay']['sessions'] == before, 20, 'all are gone')
