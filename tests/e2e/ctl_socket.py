"""The control socket of a node without a process for every question: dials by the hundred."""
import json
import os
import socket

PACKET = 256 * 1024


class Refused(Exception):
    pass


class CtlSocket:
    def __init__(self, path, timeout=20):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(timeout)
        self.sock.connect(str(path))
        self.id = 0

    def call(self, cmd, **args):
        """The answer and the descriptor that came with it, or None."""
        self.id += 1
        self.sock.sendall(json.dumps({'id': self.id, 'cmd': cmd, **args}).encode())
        while True:
            data, fds, _, _ = socket.recv_fds(self.sock, PACKET, 1)
            if not data:
                raise OSError('the node has closed its control socket')
            answer = json.loads(data)
            if answer.get('id') == self.id and 'ok' in answer:
                break
            for fd in fds:
                os.close(fd)
        if not answer['ok']:
            raise Refused(answer['error'])
        return answer, fds[0] if fds else None

    def dial(self, pk, port, timeout_ms=5000):
        """A stream, as a socket."""
        _, fd = self.call('dial', pk=pk, port=port, timeout_ms=timeout_ms)
        stream = socket.socket(fileno=fd)
        stream.settimeout(timeout_ms / 1000)
        return stream

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
