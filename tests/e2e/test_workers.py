"""Scenarios of other files once more, with relays of four workers: most streams pass two of them."""
import os

import pytest
import wire
from conftest import ROOT
from net import settled, transfer
from procs import World, wait_until
from test_abuse import dice, test_broken_mux_ends_that_session_only, test_newest_session_of_a_key_wins  # noqa: F401
from test_limits import test_a_reader_that_does_not_read, test_sessions_come_and_go  # noqa: F401
from test_mesh import clients, everybody_reaches_everybody, linked, relays  # noqa: F401
from test_restart import test_stop_takes_a_moment_only, test_the_relay_dies_and_comes_back  # noqa: F401
from test_signals import test_max_sessions  # noqa: F401
from test_streams import (test_half_close, test_many_streams_at_once, test_to_and_from_the_relay_itself,  # noqa: F401
                          test_transfer_64_mib)

WORKERS = 4


class ManyWorkers(World):
    def make(self, name, *flags, env=()):
        more = ('--workers', str(WORKERS)) if '--listen' in flags else ()
        return super().make(name, *flags, *more, env=env)


@pytest.fixture
def world():
    with ManyWorkers(os.environ.get('KADMSG', ROOT / 'build/kadmsg'), prefix='kadmsg-e2e-') as w:
        yield w
        print(w.describe())


def workers(relay):
    return relay.status['relay']['workers']


def test_sessions_spread(relay):
    """Each session lives with the worker of its key; what they count adds up; afterwards nothing is left."""
    before = 1  # the node's own
    wait_until(lambda: relay.status['relay']['sessions'] == before, 20, 'it is there')
    sessions = [wire.Session(relay.join) for _ in range(24)]
    assert all(session.alive() for session in sessions)
    wait_until(lambda: sum(w['sessions'] for w in workers(relay)) == before + 24, 20, 'all are counted')
    assert len(workers(relay)) == WORKERS
    assert sum(w['sessions'] > 0 for w in workers(relay)) > 1  # 4 ** -23: all with one of them
    wait_until(lambda: sum(w['moved'] for w in workers(relay)) > 0, 20, 'each tells once a second')
    assert relay.status['relay']['limits']['links'] >= 24
    for session in sessions:
        session.close()
    wait_until(lambda: relay.status['relay']['sessions'] == before, 20, 'all are gone')


def test_gauges_come_back(pair, tmp_path):
    relay, a, b = pair
    path = tmp_path / 'data'
    path.write_bytes(os.urandom(5_000_000))
    for _ in range(3):
        assert transfer(a, b, path, 1234) == 5_000_000
    wait_until(lambda: sum(w['buffered'] for w in workers(relay)) == 0, 20, 'nothing is held')

    def accounted():  # the workers' gauges are up to a second old, that of the limit is not
        r = relay.status['relay']
        return r['limits']['streams'] == r['bridges'] + r['limits']['setups']

    wait_until(accounted, 30, 'every stream that counts is one that there is')


def test_mesh(relays, clients):  # noqa: F811
    """Links, their clients and those who look for them are with different workers."""
    linked(relays)
    settled(clients)
    everybody_reaches_everybody(clients, 20)
