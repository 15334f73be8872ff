"""How a node starts, is told things by signals, and ends; how tools end."""
import json
import os
import signal
import socket
import time

import pytest
from net import settled
from procs import wait_until

PORT = 4321
MIB = 1 << 20


@pytest.fixture
def notify(world):
    """A socket like the one of the service manager."""
    path = world.dir / 'notify'
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(20)
        yield sock


# ---- ready ----

def test_ready_means_ready(world):
    """When the line is there, listener and control socket answer at once, and it is the only one."""
    node = world.make('one', '--full', '--listen', '127.0.0.1:0').up()
    ready = node.proc.ready
    assert set(ready) == {'event', 'public_key', 'node_id', 'relay', 'http', 'control', 'health', 'metrics'}
    assert ready['http'] is None and ready['health'] is None and ready['metrics'] is None
    host, port = ready['relay'].rsplit(':', 1)
    socket.create_connection((host, int(port)), timeout=1).close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        control.connect(ready['control'])
        control.send(b'{"id": 1, "cmd": "status"}')
        assert json.loads(control.recv(65536))['ok']
    assert os.stat(ready['control']).st_mode & 0o777 == 0o600
    node.stop()
    assert node.proc.out_path.read_bytes().count(b'\n') == 1
    assert not os.path.exists(ready['control'])


@pytest.mark.parametrize('listen', [':0', '0.0.0.0:0', '[::]:0', '[::1]:0', 'localhost:0'])
def test_every_way_to_listen(world, listen):
    """Also without a host: a relay is there, and what it publishes can be dialled by others."""
    relay = world.make('relay', '--full', '--listen', listen).up()
    at = relay.status['relay']['public_address']
    assert relay.relay and not at.startswith(('0.0.0.0', '[::]:', ':'))
    world.place('tool').cli('ping', relay.pk, '--bootstrap', f'{relay.pk}@{at}')


def test_service_manager_is_told(world, notify):
    node = world.make('one', '--listen', '127.0.0.1:0', env={'NOTIFY_SOCKET': notify.getsockname()})
    node.begin()
    assert notify.recv(100) == b'READY=1'
    assert node.status['health']  # it can serve
    node.proc.signal(signal.SIGTERM)
    assert notify.recv(100) == b'STOPPING=1'
    assert node.proc.wait() == 0


def test_stopping_is_told_before_the_end(world, relay, notify):
    """The withdrawal of the entry takes up to 2 s when nobody answers: the manager knows why it waits."""
    visor = world.make('visor', '--bootstrap', relay.join, env={'NOTIFY_SOCKET': notify.getsockname()}).up()
    settled([relay, visor])
    assert notify.recv(100) == b'READY=1'
    relay.proc.signal(signal.SIGSTOP)
    visor.proc.signal(signal.SIGTERM)
    assert notify.recv(100) == b'STOPPING=1'
    assert visor.proc.running
    assert visor.proc.wait(10) == 0
    relay.proc.signal(signal.SIGCONT)


# ---- signals ----

@pytest.mark.parametrize('sig', [signal.SIGTERM, signal.SIGINT])
def test_stop(world, sig):
    node = world.make('one', '--full', '--listen', '127.0.0.1:0').up()
    node.proc.signal(sig)
    assert node.proc.wait() == 0


def test_second_signal_does_not_wait(world, relay):
    visor = world.node('visor', '--bootstrap', relay.join)
    settled([relay, visor])
    relay.proc.signal(signal.SIGSTOP)  # nobody will take the tombstone
    visor.proc.signal(signal.SIGTERM)
    wait_until(lambda: 'stopping' in visor.proc.log, 5, 'the first one is taken')
    assert visor.proc.running
    visor.proc.signal(signal.SIGTERM)
    assert visor.proc.wait() == 0
    assert 'stopping at once' in visor.proc.log
    relay.proc.signal(signal.SIGCONT)


def test_hangup_without_configuration(world):
    node = world.make('one', '--listen', '127.0.0.1:0').up()
    node.proc.signal(signal.SIGHUP)
    wait_until(lambda: 'nothing to reload' in node.proc.log, 5, 'the node says so')
    assert node.proc.running and node.status['public_key'] == node.pk


def test_hangup_takes_over_the_log_level(world):
    node = world.make('one', '--listen', '127.0.0.1:0')
    path = node.dir / 'config.json'
    path.write_text('{"log-level": "info"}')
    node.up('--config', path)
    path.write_text('{"log-level": "error"}')
    node.proc.signal(signal.SIGHUP)
    time.sleep(0.3)
    quiet = len(node.proc.log)  # "reloaded" itself is below the new level
    path.write_text('{"log-level": "loud"}')
    node.proc.signal(signal.SIGHUP)
    wait_until(lambda: 'loud' in node.proc.log[quiet:], 5, 'the wrong level is refused by name')
    path.write_text('{"log-level": "info"}')
    node.proc.signal(signal.SIGHUP)
    wait_until(lambda: 'configuration reloaded' in node.proc.log[quiet:], 5, 'the right one is taken')
    node.stop()


# ---- the end of a visor ----

def test_entry_is_withdrawn(world, relay):
    """A clean stop leaves nothing that says that the visor could be reached."""
    visor = world.node('visor', '--bootstrap', relay.join)
    settled([relay, visor])
    visor.stop()
    assert visor.pk in relay.cli('entry', 'get', visor.pk, code=3).err


def test_own_relay_session_comes_back(world, relay):
    """A twin evicts the node from its own relay; when the twin is gone, the node is back by itself."""
    relay.cli('ping', relay.pk)
    twin = world.place('twin')
    twin.try_cli('ping', relay.pk, '--sk-file', relay.sk_file, '--bootstrap', relay.join, '--timeout', '3')
    wait_until(lambda: relay.status['sessions_up'] == 1, 60, 'a session to the own relay')
    relay.cli('ping', relay.pk)


# ---- tools ----

def test_text_of_control_characters(pair):
    """Six bytes each in JSON: more than a packet of the control socket; it is text all the same."""
    _, a, b = pair
    value = b'\x01' * 65536
    a.cli('dht', 'put', 'ctl', '-', input=value)
    assert b.cli('dht', 'get', a.pk, 'ctl').out == value
    assert b.cli('dht', 'get', a.pk, 'ctl', '--json').json['value'] == value.decode()


def test_salt_that_is_too_long(pair):
    _, a, _ = pair
    for args in (['put', 's' * 201, 'v'], ['get', a.pk, 's' * 201], ['list', '--salt', 's' * 201]):
        assert '200 bytes' in a.cli('dht', *args, code=2).err
    a.cli('dht', 'put', 's' * 200, 'v')
    assert a.cli('dht', 'get', a.pk, 's' * 200).text == 'v'


def test_control_socket_of_another_key(world, pair):
    """--control and --sk-file that do not fit together: nothing is signed by the wrong key."""
    _, a, b = pair
    refused = b.cli('dht', 'put', 'note', 'v', '--control', a.proc.ready['control'], '--sk-file', b.sk_file, code=1)
    assert 'another key' in refused.err
    a.cli('dht', 'put', 'note', 'v', '--control', a.proc.ready['control'], '--sk-file', a.sk_file)


@pytest.mark.parametrize('command', [['dht', 'get', '--network'], ['entry', 'get', '--network']], ids=' '.join)
def test_timeout_of_a_command(pair, command):
    """The node keeps the time that the tool was given, and says what took too long."""
    relay, a, b = pair
    relay.proc.signal(signal.SIGSTOP)
    args = [b.pk, 'note'] if command[0] == 'dht' else [b.pk]
    begin = time.monotonic()
    failed = a.cli(*command, *args, '--timeout', '1.5', code=5)
    assert 1.4 < time.monotonic() - begin < 15 and 'timed out after 1500 ms' in failed.err
    relay.proc.signal(signal.SIGCONT)


def test_echo_through_a_node_of_the_tools_own(world, pair):
    relay, _, b = pair
    b.start('nc', '-l', PORT, '--echo', '--ready').wait_ready()
    tool = world.place()
    data = os.urandom(4 * MIB)
    assert tool.cli('nc', f'{b.pk}:{PORT}', '--bootstrap', relay.join, input=data).out == data


def test_what_a_tool_wrote_last_arrives(world, pair):
    """The peer has ended its direction already when the tool's last bytes go out, and the tool ends at once."""
    relay, _, b = pair
    tool = world.place()
    for size in (1, 200_000):
        listener = b.start('nc', '-l', PORT, '--ready')  # its standard input is at its end
        listener.wait_ready()
        data = os.urandom(size)
        tool.cli('nc', f'{b.pk}:{PORT}', '--bootstrap', relay.join, input=data)
        assert listener.finish().out.split(b'\n', 1)[1] == data


@pytest.mark.parametrize('sig', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('args', [[], ['--echo']])
def test_listener_ends_by_signal(pair, args, sig):
    """Also in the middle of a stream."""
    _, a, b = pair
    listener = b.start('nc', '-l', PORT, '--ready', *args)
    listener.wait_ready()
    read_end, write_end = os.pipe()
    dialler = a.start('nc', f'{b.pk}:{PORT}', stdin=read_end)
    os.close(read_end)
    os.write(write_end, b'x')
    wait_until(lambda: b'x' in (dialler.out_path if args else listener.out_path).read_bytes(), 10, 'the stream works')
    listener.signal(sig)
    assert listener.wait(5) == 0
    os.close(write_end)
    dialler.wait(10)


def test_health_is_logged(world, relay):
    """Without a relay the operator need not ask: one line when it lasts, one when it is over."""
    visor = world.node('visor', '--bootstrap', relay.join)
    settled([relay, visor])
    relay.stop()
    wait_until(lambda: 'health is not ok reason="no session to any relay"' in visor.proc.log, 20, 'the line')
    assert visor.status['health'] == 'no session to any relay'
    relay.up()
    wait_until(lambda: 'health is ok again' in visor.proc.log, 60, 'the other line')
    assert visor.proc.log.count('health is') == 2


# ---- limits ----

def test_max_sessions(world):
    """What the relay offers is what it takes; its own session is not one of them."""
    relay = world.node('relay', '--full', '--listen', '127.0.0.1:0', '--max-sessions', '2')
    visors = [world.node(f'visor-{i}', '--bootstrap', relay.join) for i in range(2)]
    settled([relay, *visors])
    assert relay.cli('entry', 'get', relay.pk).json['server']['availableSessions'] == 2
    world.place('late').cli('ping', relay.pk, '--bootstrap', relay.join, '--timeout', '2', code=6)
    assert relay.status['relay']['refused_limit'] > 0
    settled([relay, *visors])


def test_commands_from_the_start_to_the_end(world, relay):
    """Every command, again and again, while the node starts, runs and stops: answers or a closed connection, nothing else."""
    visor = world.make('visor', '--bootstrap', relay.join)
    path = visor.dir / 'run/kadmsg/control'
    commands = [{'cmd': name, 'pk': relay.pk, 'salt': 's', 'port': 0, 'timeout_ms': 500, 'value_base64': 'eA=='} for name in
                ('status', 'sessions', 'wait', 'dht.get', 'dht.put', 'dht.list', 'dht.peers', 'dht.status', 'dht.why',
                 'entry.get', 'entry.publish', 'dial', 'listen', 'ping', 'ip', 'forward')]
    visor.begin()
    answers, stopping, deadline = 0, False, time.monotonic() + 30
    while visor.proc.running and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
            control.settimeout(0.02)
            try:
                control.connect(str(path))
                for i, command in enumerate(commands):
                    control.send(json.dumps({'id': i + 1, **command, **({'port': 5} if command['cmd'] != 'listen' else {})}).encode())
                while control.recv(1 << 18):
                    answers += 1
            except (OSError, TimeoutError):
                pass
        if answers > 500 and not stopping:
            visor.proc.signal(signal.SIGTERM)
            stopping = True
    assert stopping and visor.proc.wait(10) == 0, visor.proc.describe()
    assert relay.status['health'] == 'ok'


def test_failures_name_what_was_asked_for(pair):
    """The key and the slot, not only a hash of them."""
    _, a, b = pair
    for args in (['dht', 'get', b.pk, 'nothing here'], ['dht', 'get', b.pk, 'nothing here', '--network']):
        err = a.cli(*args, code=3).err
        assert b.pk in err and '"nothing here"' in err and err.count('\n') == 1


def test_entry_publish_tells_what_came_of_it(world, pair):
    """Not before the peers have answered; and the entry of a tool's own node ends with it."""
    relay, a, b = pair
    before = relay.cli('dht', 'get', a.pk, 'dmsg', '--json').json['seq']
    told = a.cli('entry', 'publish', '--json').json
    assert told['stored'] >= 1 and told['delegated'] == 1
    assert relay.cli('dht', 'get', a.pk, 'dmsg', '--json').json['seq'] > before
    tool = world.place()
    pk = tool.cli('keys', 'gen', '-o', tool.dir / 'key').text.strip()
    told = tool.cli('entry', 'publish', '--bootstrap', relay.join, '--sk-file', tool.dir / 'key')
    assert 'withdrawn' in told.text and 'held by 0 peers' not in told.text
    relay.cli('entry', 'get', pk, code=3)
    relay.stop()
    wait_until(lambda: a.status['sessions_up'] == 0, 30, 'the session is lost')
    assert 'relay' in a.cli('entry', 'publish', code=6).err
