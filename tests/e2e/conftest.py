"""End-to-end tests: real processes of the program that $KADMSG names (default: build/kadmsg)."""
import os
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / 'scripts'), str(Path(__file__).resolve().parent)]

from procs import World  # noqa: E402  (needs the path above)

LIMIT_S = 90


def pytest_configure(config):
    config.addinivalue_line('markers', f'limit(seconds): time limit of a test, default {LIMIT_S}')


@pytest.fixture(autouse=True)
def time_limit(request):
    """No test waits for ever: the main thread is interrupted, and the world fixture cleans up."""
    marker = request.node.get_closest_marker('limit')
    seconds = marker.args[0] if marker else LIMIT_S

    def expired(*_):
        pytest.fail(f'time limit of {seconds} s')

    old = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.fixture
def world():
    """Everything that a test starts; what it logged is shown when the test fails."""
    with World(os.environ.get('KADMSG', ROOT / 'build/kadmsg'), prefix='kadmsg-e2e-') as w:
        yield w
        print(w.describe())


@pytest.fixture
def relay(world):
    """One full node: relay, DHT, store."""
    return world.node('relay', '--full', '--listen', '127.0.0.1:0')


@pytest.fixture
def pair(world, relay):
    """(relay, a, b): two visor-side nodes that find each other."""
    from net import settled
    a = world.node('a', '--bootstrap', relay.join)
    b = world.node('b', '--bootstrap', relay.join)
    settled([relay, a, b])
    return relay, a, b


@pytest.fixture(scope='module')
def net():
    """(relay, a, b), one for all tests of a module, and local servers."""
    from local import Local
    from net import settled
    with World(os.environ.get('KADMSG', ROOT / 'build/kadmsg'), prefix='kadmsg-e2e-') as world:
        relay = world.node('relay', '--full', '--listen', '127.0.0.1:0')
        a = world.node('a', '--bootstrap', relay.join)
        b = world.node('b', '--bootstrap', relay.join)
        settled([relay, a, b])
        local = Local(world.dir)
        yield relay, a, b, local
        local.close()
        print(world.describe())


@pytest.fixture
def run(net):
    """Start a serving command; it ends with the test, in order."""
    started = []

    def start(place, *args):
        proc = place.start(*args, '--ready')
        started.append(proc)
        proc.wait_ready()
        return proc

    yield start
    for proc in started:
        if proc.running:
            proc.stop()
