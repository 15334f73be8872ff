"""One key, one node, one control socket."""
import signal
import time

from net import settled
from procs import wait_until


def node_args(place, key, name, *args):
    return ['node', '--sk-file', key, '--store', place.dir / name, '--listen', '127.0.0.1:0', '--ready',
            '--control', place.dir / f'{name}.sock', *args]


def test_two_nodes_with_one_key(world):
    """The second one is refused and says who has it."""
    one = world.node('one', '--full', '--listen', '127.0.0.1:0')
    result = one.cli(*node_args(one, one.sk_file, 'other'), code=1)
    assert result.out == b'' and str(one.proc.pid) in result.err and len(result.err.strip().splitlines()) == 1
    assert not (one.dir / 'other.sock').exists()
    assert one.status['public_key'] == one.pk
    one.kill()
    # The lock died with its holder.
    again = one.start(*node_args(one, one.sk_file, 'other'))
    assert again.wait_ready()['public_key'] == one.pk


def test_a_tool_with_the_nodes_key_goes_through_the_node(world, relay):
    """No --control and no --bootstrap: only the running node can have answered."""
    visor = world.node('visor', '--bootstrap', relay.join)
    settled([relay, visor])
    tool = world.place('tool', env={'XDG_STATE_HOME': visor.env['XDG_STATE_HOME']})
    put = tool.cli('dht', 'put', 'note', 'by the tool', '--sk-file', visor.sk_file, '--json').json
    assert put['stored'] >= 1
    got = relay.cli('dht', 'get', visor.pk, 'note', '--json').json
    assert (got['value'], got['seq']) == ('by the tool', put['seq'])
    assert tool.cli('ping', relay.pk, '--sk-file', visor.sk_file, '--json').json['rtt_ms'] >= 0
    # Not beside it either: while the node hangs, so does the tool.
    visor.proc.signal(signal.SIGSTOP)
    tool.cli('dht', 'put', 'note', 'beside it', '--sk-file', visor.sk_file, '--timeout', '2', '--bootstrap', relay.join, code=5)
    visor.proc.signal(signal.SIGCONT)
    # The relay has seen one session of this key all the time.
    assert relay.status['relay']['replaced'] == 0


def test_status_of_a_node_that_does_not_run(world):
    place = world.place()
    result = place.try_cli('status')
    assert result.code in (1, 6) and result.out == b'' and str(place.dir / 'run/kadmsg/control') in result.err


def test_control_socket_of_a_dead_process_is_taken_over(world):
    one = world.node('one', '--full', '--listen', '127.0.0.1:0')
    socket = one.dir / 'run/kadmsg/control'
    assert socket.is_socket() and socket.stat().st_mode & 0o777 == 0o600
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    one.kill()
    assert socket.exists()
    one.up()
    assert one.status['public_key'] == one.pk
    one.stop()
    assert not socket.exists()


def test_control_socket_of_a_living_node_is_refused(world):
    one = world.node('one', '--full', '--listen', '127.0.0.1:0')
    other = world.make('other', '--full', '--listen', '127.0.0.1:0', '--control', one.proc.ready['control'])
    proc = other.begin().proc
    assert proc.wait() == 1 and f'{one.proc.ready["control"]}: a living process has it' in proc.log
    assert one.status['public_key'] == one.pk


def test_second_node_of_one_user(world):
    """Without --control the first node has the default socket, the next one a socket of its own beside it."""
    one = world.node('one', '--full', '--listen', '127.0.0.1:0')
    key = one.dir / 'other-key'
    pk = one.cli('keys', 'gen', '-o', key, '--json').json['public_key']
    other = one.start('node', '--sk-file', key, '--store', one.dir / 'other', '--bootstrap', one.join, '--ready')
    control = other.wait_ready()['control']
    assert control.startswith(str(one.dir / 'run/kadmsg/control')) and control != one.proc.ready['control']
    assert one.status['public_key'] == one.pk
    assert one.cli('status', '--control', control, '--json').json['public_key'] == pk
    assert one.cli('dht', 'put', 'note', 'x', '--sk-file', key, '--json').json['stored'] == 1
    other.stop()


def test_control_path_that_is_no_socket(world):
    place = world.place()
    path = place.dir / 'file'
    path.write_text('precious')
    node = world.make('one', '--listen', '127.0.0.1:0', '--control', path)
    proc = node.begin().proc
    assert proc.wait() == 1 and str(path) in proc.log and path.read_text() == 'precious'


def test_control_flag(world, relay):
    """A node asked by the path of its socket, from anywhere."""
    tool = world.place()
    assert tool.cli('status', '--control', relay.proc.ready['control'], '--json').json['public_key'] == relay.pk
    missing = tool.dir / 'none'
    result = tool.cli('status', '--control', missing, code=1)
    assert str(missing) in result.err


def test_two_nodes_of_one_key_on_two_hosts(world, relay):
    """Their state directories do not know each other: the relay lives with it, and nobody spins."""
    first = world.node('first', '--bootstrap', relay.join)
    twin = world.make('twin', '--bootstrap', relay.join)
    twin.sk_file, twin.pk = first.sk_file, first.pk
    twin.up()
    wait_until(lambda: relay.status['relay']['replaced'] >= 1, 20, 'the newest session wins')
    time.sleep(5)
    assert relay.status['relay']['replaced'] < 10
    other = world.node('other', '--bootstrap', relay.join)
    settled([relay, other])


def test_many_commands_at_once(relay):
    """More than the control socket serves at a time: each is served or told, none hangs."""
    procs = [relay.start('status', '--json') for _ in range(80)]
    codes = [proc.result().code for proc in procs]
    assert codes.count(0) >= 32 and set(codes) <= {0, 1}
    assert relay.status['public_key'] == relay.pk
