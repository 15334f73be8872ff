"""Local servers and clients around the proxies: what stands behind `web srv`, and who asks."""
import contextlib
import hashlib
import http.server
import os
import random
import socket
import socketserver
import subprocess
import threading

from procs import Failed

MIB = 1 << 20


class Files(http.server.SimpleHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    hosts = []

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.hosts.append(self.headers['Host'])
        super().do_GET()

    def body(self):
        """The body of the request in pieces, however it comes."""
        if self.headers['Transfer-Encoding'] == 'chunked':
            while size := int(self.rfile.readline().split(b';')[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers['Content-Length'])
        while left > 0 and (piece := self.rfile.read(min(left, MIB))):
            left -= len(piece)
            yield piece

    def do_POST(self):
        """The SHA-256 of the body; chunked, if the body was."""
        sha = hashlib.sha256()
        for piece in self.body():
            sha.update(piece)
        answer = sha.hexdigest().encode()
        self.send_response(200)
        if self.headers['Transfer-Encoding']:
            self.send_header('Transfer-Encoding', 'chunked')
            answer = b''.join(b'1\r\n%c\r\n' % c for c in answer) + b'0\r\n\r\n'
        else:
            self.send_header('Content-Length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_PUT = do_POST


class Upside(socketserver.StreamRequestHandler):
    """Reads to the end, answers with the digest, then sends everything back: needs half-close to work."""

    def handle(self):
        data = self.rfile.read()
        self.wfile.write(hashlib.sha256(data).hexdigest().encode() + data)


class Quiet:
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_):
        """Clients that leave in the middle are part of the tests."""


class Threads(Quiet, socketserver.ThreadingMixIn, socketserver.TCPServer):
    pass


class HttpThreads(Quiet, http.server.ThreadingHTTPServer):
    pass


class Local:
    """Servers on this host that stand for services behind `web srv`."""

    def __init__(self, folder):
        self.files = folder / 'www'
        self.files.mkdir()
        self.servers = []
        (self.files / 'hello').write_bytes(b'hello over dmsg\n')
        (self.files / 'big').write_bytes(random.Random(16).randbytes(16 * MIB))
        files = str(self.files)
        self.http = self.serve(HttpThreads,
                               lambda *a, **k: Files(*a, directory=files, **k))
        self.upside = self.serve(Threads, Upside)

    def serve(self, kind, handler):
        server = kind(('127.0.0.1', 0), handler)
        threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.05}, daemon=True).start()
        self.servers.append(server)
        return server.server_address[1]

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()


def curl(*args, code=0, timeout=30):
    done = subprocess.run(['curl', '-sS', '--max-time', '25', *map(str, args)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=timeout, env={'PATH': os.environ['PATH']})
    if done.returncode != code:
        raise Failed(f'curl {args}: exit code {done.returncode}: {done.stderr.decode()}')
    return done.stdout


def digest(data):
    return hashlib.sha256(data).hexdigest()


def connect(port):
    s = socket.create_connection(('127.0.0.1', port), 20)
    s.settimeout(20)
    return s


def read_all(s):
    parts = []
    while part := s.recv(1 << 16):
        parts.append(part)
    return b''.join(parts)


def socks_request(port, host, target_port, data=b''):
    """Everything in one write, as hasty clients do; returns the socket and the reply code."""
    s = connect(port)
    name = host.encode()
    s.sendall(b'\5\1\0' + b'\5\1\0\3' + bytes([len(name)]) + name + target_port.to_bytes(2, 'big') + data)
    reply = b''
    while len(reply) < 12 and (part := s.recv(12 - len(reply))):
        reply += part
    assert reply[:3] == b'\5\0\5', reply
    return s, reply[3]


def closed_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def listening(serve):
    """A TCP server that gives each connection to serve() on a thread of its own: its port."""
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            with contextlib.suppress(OSError):
                serve(self.request)

    server = Threads(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.05}, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def read_all_or_reset(s):
    try:
        return read_all(s)
    except ConnectionError:
        return b''


def read_some_or_reset(s):
    try:
        return s.recv(100)
    except ConnectionError:
        return b''


def descriptors(process):
    """How many it has open."""
    return len(os.listdir(f'/proc/{process.pid}/fd'))
