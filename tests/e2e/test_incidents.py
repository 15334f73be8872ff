"""Production faults that need real processes to be shown (docs/incidents.md)."""
import resource
import signal
import time

import pytest
from net import settled, transfer
from procs import wait_until

NOWHERE = 'http://127.0.0.1:9'


@pytest.mark.parametrize('flags, registering', [
    ([], 'dht'),
    (['--discovery', NOWHERE], 'dht+http'),
    (['--discovery', NOWHERE, '--mode', 'hybrid'], 'dht+http'),
    (['--discovery', NOWHERE, '--mode', 'http'], 'http'),
    (['--discovery', NOWHERE, '--mode', 'dht'], 'dht'),
])
def test_incident_39_one_behaviour_for_each_configuration(world, relay, flags, registering):
    """Which network is asked and told is what the flags say, and status shows it; nothing stands in silently."""
    node = world.node('node', '--bootstrap', relay.join, *flags)
    assert node.status['registering'] == registering
    node.try_cli('ping', '02' + '79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798', '--timeout', '3')
    assert node.status['lookups']['http'] == 0  # nothing there answers, and nothing else is counted as it


def test_incident_39_http_needs_a_url(world, relay):
    for mode in 'hybrid', 'http':
        place = world.place(mode)
        place.cli('node', '--bootstrap', relay.join, '--mode', mode, code=2)


def test_incident_40_tools_leave_no_entries(world, pair):
    """Connecting is not registering: tools with keys of their own leave nothing behind, also two at a time."""
    relay, a, b = pair
    b.start('nc', '-l', '80', '--echo', '--ready').wait_ready()
    known = {row['k'] for row in entries(relay)}
    assert known == {relay.pk, a.pk, b.pk}
    tool = world.place('tool')
    for _ in range(5):
        tool.cli('ping', b.pk, '--bootstrap', relay.join)
        tool.cli('dht', 'why', b.pk, '--bootstrap', relay.join)
        two = [tool.start('nc', f'{b.pk}:80', '--bootstrap', relay.join) for _ in range(2)]
        for process in two:
            process.finish()
    assert {row['k'] for row in entries(relay)} == known


def entries(node):
    return node.cli('dht', 'list', '--salt', 'dmsg', '--json').rows


def test_incident_73_disk_full(pair):
    """The store cannot write: the relay goes on, says what is wrong, and recovers when there is room."""
    relay, a, b = pair
    path = a.dir / 'data'
    path.write_bytes(b'x' * 100_000)
    assert transfer(a, b, path, 1000) == len(path.read_bytes())
    _, hard = resource.prlimit(relay.proc.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(relay.proc.pid, resource.RLIMIT_FSIZE, (1, hard))

    def failing():
        relay.try_cli('dht', 'put', 'note', str(time.time()))
        return relay.status['store']['last_error']

    assert wait_until(failing, 30, 'the failure is shown')
    assert transfer(a, b, path, 1001) == len(path.read_bytes())
    assert relay.cli('dht', 'get', a.pk, 'dmsg', '--json').json['value']
    resource.prlimit(relay.proc.pid, resource.RLIMIT_FSIZE, (hard, hard))

    def written():
        put = relay.try_cli('dht', 'put', 'note', 'there is room again')
        store = relay.status['store']
        return put.code == 0 and store['last_error'] == '' and store['pending'] == 0

    wait_until(written, 30, 'it has recovered')
    relay.kill()
    relay.up()

    def value():
        return relay.cli('dht', 'get', relay.pk, 'note', '--json').json['value']

    assert wait_until(value, 20, 'the note is found') == 'there is room again'


def test_incident_89_stopped_process(pair):
    """A process that stood still while its relay was restarted is back at once, not after its keep-alives."""
    relay, a, b = pair
    b.proc.signal(signal.SIGSTOP)
    relay.kill()
    time.sleep(7)  # more than a busy machine's delays
    relay.up()
    b.proc.signal(signal.SIGCONT)
    wait_until(lambda: a.try_cli('ping', b.pk).code == 0, 30, 'b is reached again')
    wait_until(lambda: 'sessions are asked whether they live' in b.proc.log, 30, 'it has noticed')
    settled([relay, a, b])
