"""What an operator sets: who may come to the relay, and how much they may have of it."""
import hashlib
import os
import signal
import subprocess
import time

from net import received, settled
from procs import wait_until


def limits(node):
    return node.status['relay']['limits']


def test_lists_of_keys(world, tmp_path):
    """Keys are let in and shut out while the relay runs: by SIGHUP and by `reload`."""
    deny, allow = tmp_path / 'deny', tmp_path / 'allow'
    deny.write_text('# nobody yet\n')
    relay = world.node('relay', '--listen', '127.0.0.1:0', '--deny-keys', deny, '--workers', 3)
    a, b = (world.node(name, '--bootstrap', relay.join) for name in 'ab')
    settled([relay, a, b])
    assert relay.cli('reload', '--json').json['denied'] == 0

    deny.write_text(f'{a.pk.upper()}  # a\n\n')
    relay.proc.popen.send_signal(signal.SIGHUP)
    wait_until(lambda: a.status['sessions_up'] == 0, 20, 'its session is closed')
    wait_until(lambda: limits(relay)['refused_key'] > 0, 20, 'it comes again and is refused')
    assert b.cli('ping', relay.pk, '--json').json['rtt_ms'] >= 0
    assert limits(relay)['closed_key'] >= 1 and limits(relay)['keys_denied'] == 1

    deny.write_text(f'{b.pk}\nnot a key\n')
    failed = relay.try_cli('reload')
    assert failed.code == 1 and f'{deny}: line 2' in failed.err
    assert limits(relay)['keys_denied'] == 1

    deny.write_text('')
    relay.cli('reload')
    assert limits(relay)['keys_denied'] == 0
    a.kill()  # it would come by itself, after up to a minute of patience
    a.up()
    wait_until(lambda: a.status['sessions_up'] == 1, 20, 'it is let in again')

    allow.write_text(f'{a.pk}\n')
    other = world.node('other', '--listen', '127.0.0.1:0', '--allow-keys', allow)
    tool = world.place().try_cli('ping', other.pk, '--bootstrap', other.join, '--timeout', 3)
    assert tool.code != 0
    wait_until(lambda: limits(other)['refused_key'] > 0, 20, 'others are refused')


def test_bandwidth(world):
    """256 KiB a second for each key: a file of 1 MiB takes its time, and arrives."""
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0', '--key-rate', '256k', '--workers', 2)
    a, b = (world.node(name, '--bootstrap', relay.join) for name in 'ab')
    settled([relay, a, b])
    data = os.urandom(1 << 20)
    listener = b.start('nc', '-l', 1234, '--ready')
    listener.wait_ready()
    begin = time.monotonic()
    sender = a.start('nc', f'{b.pk}:1234', stdin=subprocess.PIPE)
    sender.popen.stdin.write(data)
    sender.popen.stdin.close()
    listener.finish(60)
    assert hashlib.sha256(received(listener)).digest() == hashlib.sha256(data).digest()
    assert time.monotonic() - begin > 3, 'faster than the limit allows'
    wait_until(lambda: limits(relay)['throttled'] > 0, 20, 'the relay has counted it')
    wait_until(lambda: limits(relay)['throttle_waits'] == 0 and limits(relay)['streams'] >= 0, 20, 'nobody waits')
