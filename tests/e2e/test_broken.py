"""Streams that die half-way reach the tool as errors, not as a clean end of file."""
import contextlib
import socket
import subprocess
import threading

import pytest
from procs import wait_until

PORT = 1234


def talking(a, b):
    """nc from a to an echo on b, in the middle of a conversation."""
    b.start('nc', '-l', PORT, '--echo', '--ready').wait_ready()
    nc = a.start('nc', f'{b.pk}:{PORT}', stdin=subprocess.PIPE)
    nc.popen.stdin.write(b'hello')
    nc.popen.stdin.flush()
    wait_until(lambda: nc.out_path.read_bytes() == b'hello', 20, 'the echo')
    return nc


@pytest.mark.parametrize('victim', ['relay', 'peer'])
def test_nc(pair, victim):
    """Its standard input is still open: it ends all the same."""
    relay, a, b = pair
    nc = talking(a, b)
    (relay if victim == 'relay' else b).kill()
    result = nc.result(60)
    assert result.code == 1
    assert f'stream with {b.pk}:{PORT}: ' in result.err


def test_nc_in_order(pair):
    _, a, b = pair
    nc = talking(a, b)
    nc.popen.stdin.close()
    nc.finish()


def test_nc_listener(pair):
    relay, a, b = pair
    listener = b.start('nc', '-l', PORT, '--ready', stdin=subprocess.PIPE)
    listener.wait_ready()
    nc = a.start('nc', f'{b.pk}:{PORT}', stdin=subprocess.PIPE)
    nc.popen.stdin.write(b'hello')
    nc.popen.stdin.flush()
    wait_until(lambda: listener.out_path.read_bytes().endswith(b'hello'), 20, 'the bytes')
    relay.kill()
    assert listener.result(60).code == 1


class OldServer:
    """HTTP/1.0 without a length: the end of the connection is the end of the body."""

    def __init__(self):
        self.socket = socket.create_server(('127.0.0.1', 0))
        self.port = self.socket.getsockname()[1]
        self.go_on = threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def close(self):
        """Not before accept() has returned: its number may be another socket's by then."""
        self.go_on.set()
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join(20)
        self.socket.close()

    def serve(self):
        while True:
            try:
                conn, _ = self.socket.accept()
            except OSError:
                return
            with conn:
                conn.recv(65536)
                conn.sendall(b'HTTP/1.0 200 OK\r\n\r\nhalf')
                self.go_on.wait()
                with contextlib.suppress(OSError):  # nobody reads it any more
                    conn.sendall(b' and half')


@pytest.fixture
def fetching(pair):
    """curl on a, in the middle of a body that is served behind b."""
    _, a, b = pair
    server = OldServer()
    b.start('web', 'srv', '-p', server.port, '-d', 80, '--ready').wait_ready()
    out = a.dir / 'body'
    curl = a.start('curl', '-o', out, '--silent', f'dmsg://{b.pk}/')
    wait_until(lambda: size(out) == 4, 20, 'half of it')
    yield server, curl, out
    server.close()


def size(path):
    return path.stat().st_size if path.exists() else 0


def test_curl_in_order(fetching):
    server, curl, out = fetching
    server.go_on.set()
    curl.finish()
    assert out.read_bytes() == b'half and half'


def test_curl(pair, fetching):
    relay, _, b = pair
    _, curl, _ = fetching
    relay.kill()
    result = curl.result(60)
    assert result.code != 0
    assert f'stream with {b.pk}:80: ' in result.err
