"""kadmsg iperf: bytes that are checked, round trips, both directions, several streams."""
import signal
import subprocess

import pytest
from procs import Failed, wait_until

KEY = '0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'


@pytest.fixture
def served(world, relay):
    """(relay, place of the client, target)"""
    server = world.place('server').start('iperf', 'server', '--ready', '--bootstrap', relay.join)
    ready = server.wait_ready()
    yield relay, world.place(), f"{ready['public_key']}:{ready['port']}", server
    server.stop()


def measure(place, *args, **how):
    return place.cli('iperf', *args, '--json', **how).rows


def check(direction, streams):
    assert direction['bytes'] > 0 and direction['wrong_bytes'] == 0 and direction['mbit_s'] > 0
    assert len(direction['streams']) == streams and sum(direction['streams']) == direction['bytes']


def test_up_through_a_running_node(world, served):
    relay, _, target, _ = served
    a = world.node('a', '--bootstrap', relay.join)
    wait_until(lambda: a.try_cli('ping', target.partition(':')[0]).code == 0, 30, 'the server is found')
    rows = measure(a, target, '-t', '0.6', '-i', '0.2', '--idle', '0.2')
    result = rows[-1]
    assert [r['event'] for r in rows[:-1]] == ['interval'] * (len(rows) - 1) and len(rows) > 1
    assert result['event'] == 'result' and result['direction'] == 'up' and result['down'] is None
    check(result['up'], 1)
    assert sum(r['up_bytes'] for r in rows[:-1]) <= result['up']['bytes']
    idle = result['latency']['idle']
    assert idle['count'] > 0 and idle['min_ms'] <= idle['p50_ms'] <= idle['p99_ms'] <= idle['max_ms']


def test_both_directions_alone(served):
    relay, tool, target, _ = served
    [result] = measure(tool, target, '-S', relay.join, '-t', '0.4', '-d', 'both', '-P', '3', '-i', '0', '--idle', '0')
    check(result['up'], 3)
    check(result['down'], 3)
    assert result['latency']['idle'] is None


def test_down_without_discovery(served):
    relay, tool, target, _ = served
    [result] = measure(tool, target.partition(':')[0], '-B', '-S', relay.join, '-t', '0.4', '-R', '-l', '1000', '-i', '0',
                       '--idle', '0.1')
    check(result['down'], 1)
    assert result['up'] is None and result['block'] == 1000
    text = tool.cli('iperf', target, '-B', '-S', relay.join, '-t', '0.2', '--idle', '0.1').text
    assert 'every byte checked' in text and 'round trip idle' in text


def test_whitelist(world, relay):
    tool = world.place()
    server = world.place('server').start('iperf', 'server', '--ready', '--bootstrap', relay.join, '--wl', KEY)
    pk = server.wait_ready()['public_key']
    failed = tool.cli('iperf', pk, '-S', relay.join, '-t', '0.2', code=1)
    assert 'iperf server' in failed.err
    server.stop()


def test_other_end_is_something_else(world, relay):
    """An echo port gives back the head as it is: that is no answer of ours."""
    tool = world.place()
    echo = world.place('echo').start('nc', '-l', '40', '--echo', '--ready', '--bootstrap', relay.join)
    pk = echo.wait_ready()['public_key']
    tool.cli('iperf', f'{pk}:40', '-S', relay.join, '-t', '0.2', code=1)
    echo.stop()


def test_what_is_no_client(served):
    """Garbage, a head of another program, silence: closed or waited for, and others are served meanwhile."""
    relay, tool, target, _ = served
    silent = tool.start('nc', target, '-S', relay.join, stdin=subprocess.PIPE)
    for data in (b'x' * 24, b'GET / HTTP/1.1\r\nHost: x\r\n\r\n', b'kiperf1\n' + b'\xff' * 16):
        assert tool.cli('nc', target, '-S', relay.join, input=data).out == b''
    [result] = measure(tool, target, '-S', relay.join, '-t', '0.2', '-i', '0', '--idle', '0')
    check(result['up'], 1)
    assert silent.running
    silent.kill()


def test_server_dies(served):
    relay, tool, target, server = served
    client = tool.start('iperf', target, '-S', relay.join, '-t', '60', '-i', '0.1')
    wait_until(lambda: ' up ' in client.out_path.read_text(), 30, 'bytes are on their way')
    server.kill()
    code = client.wait(30)
    if code in (0, 2):
        raise Failed(client.describe())
    assert 'kadmsg: iperf' in client.log
    server.stop = lambda: None


def test_interrupted_client_reports(served):
    relay, tool, target, _ = served
    client = tool.start('iperf', target, '-S', relay.join, '-t', '60', '-i', '0.1', '--json')
    wait_until(lambda: client.out_path.read_text().count('interval') > 1, 30, 'bytes are on their way')
    client.signal(signal.SIGINT)
    result = client.finish(30).rows[-1]
    check(result['up'], 1)
    assert result['seconds'] < 50


@pytest.mark.parametrize('args', [[], [KEY + ':0'], ['x'], [KEY, '-P', '0'], [KEY, '-P', '65'], [KEY, '-l', '2M'],
                                  [KEY, '-t', '2h'], [KEY, '-d', 'left'], ['server', '--port', '0'],
                                  ['server', '--wl', 'x']], ids=' '.join)
def test_wrong_usage(world, args):
    tool = world.place()
    result = tool.cli('iperf', *args, code=2)
    assert result.out == b'' and result.err.strip() and list(tool.dir.iterdir()) == []
