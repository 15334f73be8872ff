"""The load generator: its modes against a real relay, its contract, and that it sees wrong bytes."""
import json
import re
import socket
import subprocess
import threading

import pytest

PK = '0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'
MEMBERS = {'mode', 'parameters', 'value', 'unit', 'server_cpu_s', 'driver_cpu_s', 'server_rss_kib', 'errors'}
SHORT = ['--seconds', '0.3']
MODES = {
    'bulk': ['bulk', *SHORT],
    'bulk of many': ['bulk', *SHORT, '--pairs', '2', '--streams', '40', '--write', '65536'],
    'bulk of bytes': ['bulk', *SHORT, '--write', '1'],
    'bulk sealed': ['bulk', *SHORT, '--e2e', '--streams', '3'],
    'ping': ['ping', '--count', '50'],
    'ping sealed': ['ping', '--count', '20', '--size', '30000', '--e2e'],
    'open': ['open', *SHORT, '--pairs', '3', '--inflight', '5'],
    'open sealed': ['open', *SHORT, '--pairs', '3', '--inflight', '5', '--e2e'],
    'sess': ['sess', '--count', '30', '--inflight', '7'],
    'idle': ['idle', '--sessions', '21', '--streams', '30', '--hold', '0.1'],
}
WRONG = [[], ['no-such-mode'], ['bulk'], ['bulk', '--addr', '127.0.0.1:1'], ['sess', '--pairs', '2'],
         ['bulk', '--addr', '127.0.0.1:1', '--pk', PK[:-1]], ['bulk', '--addr', 'x', '--pk', PK],
         ['bulk', '--addr', '127.0.0.1:1', '--bare', '--e2e'], ['ping', '--size', '0'],
         ['bulk', '--write', '65537'], ['bulk', 'surplus'], ['floor', '--pairs', '1']]


@pytest.fixture
def load(world):
    program = world.program.parent / 'kadmsg-load'

    def run(*args):
        done = subprocess.run([program, *map(str, args)], capture_output=True, timeout=60)
        return done.returncode, done.stdout.decode(), done.stderr.decode()
    return run


@pytest.fixture
def flags(world):
    node = world.node('relay', '--listen', '127.0.0.1:0')
    return ['--addr', node.relay, '--pk', node.pk, '--pid', node.proc.pid]


@pytest.mark.parametrize('args', MODES.values(), ids=MODES.keys())
def test_modes(load, flags, args):
    code, out, err = load(*flags, *args)
    assert (code, err) == (0, '') and out.count('\n') == 1, f'{code} {out}{err}'
    result = json.loads(out)
    assert MEMBERS <= result.keys()
    assert result['mode'] == args[0] and result['errors'] == 0
    assert result['driver_cpu_s'] > 0 and result['server_rss_kib'] > 0
    assert result['value'] > 0 or args[0] == 'idle'


def test_without_pid(load, flags):
    code, out, _ = load(*flags[:4], 'ping', '--count', '3')
    assert code == 0 and '"server_cpu_s":null' in out


@pytest.mark.parametrize('args', WRONG, ids=' '.join)
def test_usage(load, args):
    code, out, err = load(*args)
    assert (code, out) == (2, '') and err.startswith('kadmsg-load: ')


def test_nobody_there(load):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        to = ['--addr', f'127.0.0.1:{s.getsockname()[1]}', '--pk', PK]
        code, out, err = load(*to, 'bulk')
        assert (code, out) == (1, '') and 'refused' in err
        code, out, _ = load(*to, 'sess', '--count', '3')
        assert code == 1 and '"errors":3,' in out
        code, out, err = load(*to, '--pid', 2**22 + 1, 'sess')
        assert (code, out) == (1, '') and 'process' in err


def relay_one_pair(listener, change):
    """Copies between two connections; change() sees every piece from the first to the second."""
    ends = [listener.accept()[0] for _ in range(2)]

    def copy(source, sink, look):
        try:
            while piece := source.recv(65536):
                sink.sendall(look(piece))
        except OSError:
            pass

    threads = [threading.Thread(target=copy, args=(ends[0], ends[1], change)),
               threading.Thread(target=copy, args=(ends[1], ends[0], lambda piece: piece))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


@pytest.mark.parametrize('flip', [False, True])
def test_sees_one_wrong_bit(load, flip):
    """Between two clients without a server, because a bit of the payload can be turned there."""
    header = re.compile(rb'\0\0\0\0\0\0\0\x01\0\0..', re.DOTALL)
    turned = []

    def change(piece):
        middle = len(piece) // 2
        if not flip or turned or len(piece) < 2000 or header.search(piece, middle - 24, middle + 24):
            return piece
        turned.append(middle)
        return piece[:middle] + bytes([piece[middle] ^ 4]) + piece[middle + 1:]

    with socket.create_server(('127.0.0.1', 0)) as listener:
        relay = threading.Thread(target=relay_one_pair, args=(listener, change))
        relay.start()
        code, out, err = load('--addr', f'127.0.0.1:{listener.getsockname()[1]}', 'bulk', '--bare', *SHORT)
        relay.join()
    assert len(turned) == flip
    if flip:
        assert (code, out) == (1, '') and err.startswith('kadmsg-load: bytes of a stream: ')
    else:
        assert code == 0 and '"errors":0' in out
