"""A dmsg client in a few lines, written from docs/protocol/dmsg.md alone: enough to misbehave on the wire.

It opens a session (noise XK, §2, §3.1), speaks raw yamux frames on it (§3.3), and can put a signed
stream request into a stream (§4.2-4.4). Slow and not constant-time: for tests only.
"""
import ctypes
import hashlib
import hmac
import os
import socket
import struct
import time

from procs import Failed

# ---- secp256k1 (§1) ----

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
     0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8)


def add(a, b):
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def multiply(k, point):
    total = None
    while k:
        if k & 1:
            total = add(total, point)
        point, k = add(point, point), k >> 1
    return total


def compress(point):
    return bytes([2 + (point[1] & 1)]) + point[0].to_bytes(32, 'big')


def decompress(pk):
    x = int.from_bytes(pk[1:], 'big')
    y = pow(x**3 + 7, (P + 1) // 4, P)
    return x, y if y & 1 == pk[0] & 1 else P - y


class Key:
    def __init__(self, secret=None):
        self.secret = secret or int.from_bytes(os.urandom(32), 'big') % (N - 1) + 1
        self.public = compress(multiply(self.secret, G))

    def dh(self, pk):
        """§1.2: 33 bytes, the last one 0."""
        return hashlib.sha256(compress(multiply(self.secret, decompress(pk)))).digest() + b'\0'

    def sign(self, payload):
        """§1.3: r | s | recovery id, low s."""
        z = int.from_bytes(hashlib.sha256(payload).digest(), 'big')
        k = int.from_bytes(os.urandom(32), 'big') % (N - 1) + 1
        r = multiply(k, G)
        s = pow(k, -1, N) * (z + r[0] * self.secret) % N
        recovery = r[1] & 1
        if s > N // 2:
            s, recovery = N - s, recovery ^ 1
        return r[0].to_bytes(32, 'big') + s.to_bytes(32, 'big') + bytes([recovery])


# ---- noise (§2) ----

_sodium = ctypes.CDLL('libsodium.so.23')


def seal(key, n, ad, plain):
    out = ctypes.create_string_buffer(len(plain) + 16)
    nonce = bytes(4) + struct.pack('<Q', n)
    _sodium.crypto_aead_chacha20poly1305_ietf_encrypt(
        out, None, plain, ctypes.c_ulonglong(len(plain)), ad, ctypes.c_ulonglong(len(ad)), None, nonce, key)
    return out.raw


def hkdf(ck, data):
    t = hmac.digest(ck, data, 'sha256')
    one = hmac.digest(t, b'\1', 'sha256')
    return one, hmac.digest(t, one + b'\2', 'sha256')


class Symmetric:
    def __init__(self, name):
        self.h = self.ck = hashlib.sha256(name).digest()
        self.k, self.n = None, 0
        self.mix_hash(b'')

    def mix_hash(self, data):
        self.h = hashlib.sha256(self.h + data).digest()

    def mix_key(self, data):
        self.ck, self.k = hkdf(self.ck, data)
        self.n = 0

    def encrypt(self, plain):
        out = seal(self.k, self.n, self.h, plain)
        self.n += 1
        self.mix_hash(out)
        return out


# ---- session: yamux frames (§3.3) ----

DATA, WINDOW, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


class Session:
    """A session to a relay: PK@HOST:PORT."""

    def __init__(self, join, key=None, glued=b''):
        pk, _, address = join.partition('@')
        host, _, port = address.rpartition(':')
        self.server, self.key = bytes.fromhex(pk), key or Key()
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.inbox, self.next_id, self.counter = b'', 1, 0
        self.handshake(glued)

    def handshake(self, glued):
        e = Key()
        s = Symmetric(b'Noise_XK_Secp256k1_ChaChaPoly_SHA256')
        s.mix_hash(self.server)
        s.mix_hash(e.public)
        s.mix_key(e.dh(self.server))
        self.send_message(e.public + s.encrypt(b''))
        reply = self.read(struct.unpack('>H', self.read(2))[0])
        remote = reply[:33]
        s.mix_hash(remote)
        s.mix_key(e.dh(remote))
        s.mix_hash(reply[33:])  # its tag is not checked: the server will not understand us if it was wrong
        s.n += 1
        static = s.encrypt(self.key.public)
        s.mix_key(self.key.dh(remote))
        self.send_message(static + s.encrypt(b''), glued)
        self.send_key = hkdf(s.ck, b'')[1]  # §2.4: the writer of the last message sends with k2

    def send_message(self, message, glued=b''):
        self.socket.sendall(struct.pack('>H', len(message)) + message + glued)

    def read(self, n):
        while len(self.inbox) < n:
            data = self.socket.recv(65536)
            if not data:
                raise Failed('the relay closed the session')
            self.inbox += data
        out, self.inbox = self.inbox[:n], self.inbox[n:]
        return out

    def frame(self, kind, flags, stream, length, body=b''):
        self.socket.sendall(struct.pack('>BBHII', 0, kind, flags, stream, length) + body)

    def open(self, data=b'', flags=0):
        stream, self.next_id = self.next_id, self.next_id + 2
        self.frame(DATA, SYN | flags, stream, len(data), data)
        return stream

    def next_frame(self):
        """(kind, flags, stream, length or body); pings of the relay are answered."""
        while True:
            _, kind, flags, stream, length = struct.unpack('>BBHII', self.read(12))
            body = self.read(length) if kind == DATA else length
            if kind == PING and flags & SYN:
                self.frame(PING, ACK, 0, length)
                continue
            return kind, flags, stream, body

    def alive(self):
        """The relay answers a yamux ping, and echoes the ping marker in a new stream (§3.5)."""
        number = int.from_bytes(os.urandom(3), 'big')
        self.frame(PING, SYN, 0, number)
        while self.next_frame() != (PING, ACK, 0, number):
            pass
        stream, echo = self.open(b'\0\0'), b''
        while len(echo) < 2:
            kind, flags, of, body = self.next_frame()
            if of == stream and kind == DATA:
                echo += body
            if of == stream and flags & (FIN | RST) and len(echo) < 2:
                return False
        return echo == b'\0\0'

    # ---- stream requests (§4.2 - 4.4) ----

    def sealed(self, obj):
        self.counter += 1
        text = struct.pack('>Q', self.counter) + seal(self.send_key, self.counter, b'', obj)
        return struct.pack('>H', len(text)) + text

    def request(self, pk, port, noise_message, key=None):
        """A well-formed, signed and sealed StreamRequest with any bytes in place of KK message 1."""
        value = (b'\xff\x80\x01' + gob_uint(2 * time.time_ns()) + b'\x01' + gob_addr(self.key.public, 49153) +
                 b'\x01' + gob_addr(bytes.fromhex(pk), port) + b'\x01' + gob_uint(len(noise_message)) + noise_message + b'\0')
        gob = REQUEST_TYPES + gob_uint(len(value)) + value
        return self.sealed((key or self.key).sign(gob) + gob)

    def close(self):
        self.socket.close()


REQUEST_TYPES = bytes.fromhex(
    '4f7f0301010d53747265616d5265717565737401ff80000104010954696d657374616d7001040001075372634164647201ff82000107447374'
    '4164647201ff820001084e6f6973654d7367010a00000023ff81030101044164647201ff820001020102504b01ff84000104506f7274010600'
    '000012ff83060101065075624b657901ff84000000')


def gob_uint(n):
    if n < 128:
        return bytes([n])
    text = n.to_bytes((n.bit_length() + 7) // 8, 'big')
    return bytes([256 - len(text)]) + text


def gob_addr(pk, port):
    return b'\x01\x21' + pk + b'\x01' + gob_uint(port) + b'\0'
