"""Streams: bytes through the relay from end to end, half-close, refusals, ping."""
import hashlib
import os
import random
import subprocess

import pytest
from net import received, transfer
from procs import wait_until

PORT = 1234
MIB = 1 << 20


def random_file(place, size):
    path = place.dir / f'data-{size}'
    path.write_bytes(random.Random(size).randbytes(size))
    return path


@pytest.mark.parametrize('size', [0, 1, 4070, 4071, 65535, 65536, 262144, 262145, 3 * MIB + 17])
def test_transfer(pair, size):
    _, a, b = pair
    assert transfer(a, b, random_file(a, size), PORT) == size


@pytest.mark.limit(180)
def test_transfer_64_mib(pair):
    relay, a, b = pair
    assert transfer(a, b, random_file(a, 64 * MIB), PORT, timeout=120) == 64 * MIB
    wait_until(lambda: relay.status['relay']['buffered'] == 0, 15, 'nothing is left in the relay')


def test_to_and_from_the_relay_itself(pair):
    relay, a, _ = pair
    assert transfer(a, relay, random_file(a, MIB), PORT) == MIB
    assert transfer(relay, a, random_file(relay, MIB), PORT) == MIB


def echo(place, *args):
    """A listener that sends back what comes."""
    proc = place.start('nc', '-l', PORT, '--echo', '--ready', *args)
    proc.wait_ready()
    return proc


@pytest.mark.parametrize('size', [0, 1, 100_000, 8 * MIB])
def test_echo(pair, size):
    """Much more than any window, in both directions at once."""
    _, a, b = pair
    echo(b)
    path = random_file(a, size)
    with open(path, 'rb') as data:
        assert a.cli('nc', f'{b.pk}:{PORT}', stdin=data).out == path.read_bytes()


@pytest.mark.parametrize('fd', [0, 1])
def test_closed_standard_descriptor(pair, fd):
    """No socket takes its number: the stream ends like one with nothing to read, or nobody to print for."""
    _, a, b = pair
    echo(b)
    dialer = a.start('nc', f'{b.pk}:{PORT}', limits=[lambda: os.close(fd)])
    assert dialer.finish().out == b''


def test_many_streams_at_once(pair):
    _, a, b = pair
    echo(b)
    paths = [random_file(a, 100_000 + i) for i in range(12)]
    files = [open(p, 'rb') for p in paths]
    procs = [a.start('nc', f'{b.pk}:{PORT}', stdin=f) for f in files]
    for path, proc in zip(paths, procs):
        assert proc.finish().out == path.read_bytes()
    for f in files:
        f.close()


def test_half_close(pair):
    """The answer is sent after the end of the question was seen: FIN goes one way, data the other."""
    _, a, b = pair
    listener = b.start('nc', '-l', PORT, '--ready', stdin=subprocess.PIPE)
    listener.wait_ready()
    question = random_file(a, 300_000)
    with open(question, 'rb') as data:
        asker = a.start('nc', f'{b.pk}:{PORT}', stdin=data)
    wait_until(lambda: len(received(listener)) == 300_000, 20, 'question received')
    assert asker.running, 'the asker must wait for its answer'
    answer = hashlib.sha256(received(listener)).hexdigest().encode()
    listener.popen.stdin.write(answer * 1000)
    listener.popen.stdin.close()
    assert asker.finish().out == hashlib.sha256(question.read_bytes()).hexdigest().encode() * 1000
    listener.finish()


def test_listener_speaks_first(pair):
    _, a, b = pair
    listener = b.start('nc', '-l', PORT, '--ready', stdin=subprocess.PIPE)
    listener.wait_ready()
    asker = a.start('nc', f'{b.pk}:{PORT}', stdin=subprocess.PIPE)
    listener.popen.stdin.write(b'hello')
    listener.popen.stdin.flush()
    wait_until(lambda: asker.out_path.read_bytes() == b'hello', 20, 'greeting')
    asker.popen.stdin.close()
    listener.popen.stdin.close()
    asker.finish()
    listener.finish()


def test_nobody_listens(pair):
    _, a, b = pair
    result = a.cli('nc', f'{b.pk}:{PORT}', code=4)
    assert result.out == b'' and result.err.strip()


def test_port_taken(pair):
    _, _, b = pair
    echo(b)
    result = b.cli('nc', '-l', PORT, code=1)
    assert str(PORT) in result.err


def test_port_is_free_again_when_its_listener_was_killed(pair):
    _, a, b = pair
    echo(b).kill()
    wait_until(lambda: a.try_cli('nc', f'{b.pk}:{PORT}').code == 4, 10, 'port free')
    assert transfer(a, b, random_file(a, 1000), PORT) == 1000


def test_killed_dialer_ends_the_stream(pair):
    _, a, b = pair
    listener = b.start('nc', '-l', PORT, '--ready')
    listener.wait_ready()
    dialer = a.start('nc', f'{b.pk}:{PORT}', stdin=subprocess.PIPE)
    dialer.popen.stdin.write(b'x' * 1000)
    dialer.popen.stdin.flush()
    wait_until(lambda: len(received(listener)) == 1000, 20, 'data')
    dialer.kill()
    listener.wait()


def test_destination_unknown(pair):
    _, a, _ = pair
    nobody = a.cli('keys', 'gen', '--json').json['public_key']
    assert nobody[:8] in a.cli('nc', f'{nobody}:{PORT}', code=3).err
    assert nobody[:8] in a.cli('ping', nobody, code=3).err


def test_tools_without_a_node(world, pair):
    """nc between a tool with its own key and a node."""
    relay, a, _ = pair
    echo(a)
    tool = world.place()
    done = tool.cli('nc', f'{a.pk}:{PORT}', '--bootstrap', relay.join, input=b'from a tool')
    assert done.out == b'from a tool'


@pytest.mark.parametrize('whom', ['relay', 'b'])
def test_ping(pair, whom):
    relay, a, b = pair
    pk = {'relay': relay, 'b': b}[whom].pk
    answer = a.cli('ping', pk, '--json').json
    assert 0 <= answer['rtt_ms'] < 20_000 and answer['via']
