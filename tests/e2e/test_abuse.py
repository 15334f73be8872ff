"""Peers that misbehave on the wire (tests/e2e/wire.py): they hurt their own stream or session, nobody else's."""
import random
import socket

import pytest
import wire
from net import settled, transfer
from procs import wait_until


@pytest.fixture
def dice():
    seed = random.randrange(2**32)
    print('seed', seed)  # shown when the test fails
    return random.Random(seed)


def still_good(relay, a, b, tmp_path):
    path = tmp_path / 'data'
    path.write_bytes(bytes(100_000))
    assert transfer(a, b, path, 1234) == 100_000
    assert a.cli('dht', 'get', relay.pk, 'dmsg', '--network', '--json').json['seq'] > 0


def test_a_thousand_random_streams_leave_the_session_alive(pair, tmp_path, dice):
    """Random bytes, early close, reset, silence: 1 000 streams in one session of the relay."""
    relay, a, b = pair
    session = wire.Session(relay.join)
    assert session.alive()
    for i in range(1000):
        data = dice.randbytes(dice.choice((0, 1, 2, 3, 60, 300, 5000)))
        fin = dice.choice((0, 0, wire.FIN))
        stream = session.open(data, fin)
        end = dice.choice((None, wire.FIN, wire.RST))
        if end and end != fin:  # a second FIN would be an error of the session
            session.frame(wire.WINDOW, end, stream, 0)
        if i % 100 == 99:
            # Beyond its rate the relay resets streams, so the marker may need a second try; the session must live.
            wait_until(session.alive, 20, 'a good stream in the same session')
    still_good(relay, a, b, tmp_path)


def test_a_thousand_bad_requests_leave_the_destination_alive(pair, tmp_path, dice):
    """Well signed requests with random bytes for the end-to-end handshake are passed on to the visor."""
    relay, a, b = pair
    streams = relay.status['relay']
    session = wire.Session(relay.join)
    for i in range(1000):
        session.open(session.request(b.pk, dice.choice((100, 1234, 80)), dice.randbytes(dice.choice((0, 48, 49, 50, 1233)))))
        if i % 50 == 49:
            wait_until(session.alive, 20, 'session')
    wait_until(lambda: relay.status['relay']['stream_failed'] > streams['stream_failed'], 20, 'requests failed')
    assert b.status['sessions'] == 1 and relay.status['relay']['replaced'] == streams['replaced']
    still_good(relay, a, b, tmp_path)


def test_forged_requests(pair, tmp_path):
    """Signed by another key than the source's: the relay does not pass them on."""
    relay, a, b = pair
    session, other = wire.Session(relay.join), wire.Key()
    ends = {session.open(session.request(b.pk, 1234, bytes(49), key=other)) for _ in range(5)}
    while ends:
        _, flags, stream, _ = session.next_frame()
        if flags & (wire.FIN | wire.RST):
            ends.discard(stream)
    assert session.alive()
    still_good(relay, a, b, tmp_path)


def test_first_frames_glued_to_the_handshake(relay):
    """A mux frame in the same segment as the last handshake message (incident 4)."""
    ping = wire.struct.pack('>BBHII', 0, wire.PING, wire.SYN, 0, 4711)
    session = wire.Session(relay.join, glued=ping)
    assert session.next_frame() == (wire.PING, wire.ACK, 0, 4711)
    assert session.alive()


def test_broken_mux_ends_that_session_only(pair, tmp_path, dice):
    relay, a, b = pair
    for data in (dice.randbytes(500), wire.struct.pack('>BBHII', 0, 9, 0, 0, 0), wire.struct.pack('>BBHII', 1, 0, 0, 0, 0),
                 wire.struct.pack('>BBHII', 0, wire.DATA, wire.SYN, 1, 2**32 - 1) + bytes(300_000),
                 wire.struct.pack('>BBHII', 0, wire.GO_AWAY, 0, 0, 1)):
        session = wire.Session(relay.join)
        assert session.alive()
        try:
            session.socket.sendall(data)
            while session.next_frame():
                pass
        except (wire.Failed, OSError):
            continue
    still_good(relay, a, b, tmp_path)


def test_garbage_connections(pair, tmp_path, dice):
    """Connections that never become sessions: garbage, half a handshake, nothing at all."""
    relay, a, b = pair
    host, _, port = relay.relay.rpartition(':')
    mute = []
    for i in range(300):
        s = socket.create_connection((host, int(port)))
        try:
            s.sendall(dice.randbytes(dice.choice((0, 1, 51, 4000))) if i % 3 else b'\0\x31\x02' + dice.randbytes(20))
        except OSError:
            pass
        mute.append(s)
        if i % 2:
            mute.pop().close()
    still_good(relay, a, b, tmp_path)
    wait_until(lambda: relay.status['relay']['handshakes'] == 0, 30, 'nothing is kept of them')
    for s in mute:
        s.close()


def test_newest_session_of_a_key_wins(relay):
    key = wire.Key()
    first = wire.Session(relay.join, key)
    assert first.alive()
    second = wire.Session(relay.join, key)
    assert second.alive()
    with pytest.raises((wire.Failed, OSError)):
        while True:
            first.next_frame()
    assert second.alive()


def test_random_bytes_to_the_dht_port(pair, dice):
    """End-to-end streams are good here; what they carry is not."""
    relay, a, b = pair
    for size in (0, 1, 4, 5, 100, 4000, 70_000):
        for first in (b'', b'\x00\x00\x10\x00', b'\x93', b'\x94\x00'):
            a.try_cli('nc', f'{relay.pk}:100', input=first + dice.randbytes(size), timeout=30)
    assert b.cli('dht', 'get', a.pk, 'dmsg', '--network', '--json').json['source'] == 'dht'
    settled([relay, a, b])
