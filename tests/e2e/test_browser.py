"""A real browser through kadmsg web: a page with a stylesheet, images from two keys, a script and a WebSocket."""
import base64
import contextlib
import hashlib
import http.server
import struct
import zlib

import pytest
from browser import Browser
from local import HttpThreads, closed_port

PAGE = b'''<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>a site over dmsg</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="style.css"></head>
<body><h1 id="head">before</h1><img id="near" src="/near.png"><img id="far" src="http://other.dmsg/far.png">
<ul id="said"></ul><script src="page.js"></script></body></html>'''

STYLE = b'#head { color: rgb(1, 2, 3); background-image: url(back.png); }'

SCRIPT = b'''
document.getElementById('head').textContent = location.host;
const socket = new WebSocket('ws://' + location.host + '/socket'), parts = [];
socket.onopen = () => { socket.send('x'.repeat(100000)); socket.send('hello'); };
socket.onmessage = (event) => {
    const item = document.createElement('li');
    item.textContent = event.data.length + ' ' + event.data.slice(-5);
    document.getElementById('said').append(item);
    if (event.data === 'hello') socket.close(1000);
};
socket.onclose = (event) => { document.body.dataset.closed = event.code; };
'''

FOUND = '''document.readyState === 'complete' && document.body.dataset.closed && ({
    head: document.getElementById('head').textContent,
    color: getComputedStyle(document.getElementById('head')).color,
    near: document.getElementById('near').naturalWidth, far: document.getElementById('far').naturalWidth,
    said: [...document.querySelectorAll('#said li')].map((e) => e.textContent), closed: document.body.dataset.closed,
    loaded: performance.getEntriesByType('resource').map((e) => new URL(e.name).pathname).sort()})'''


def png(side):
    """A square image, all of one grey."""
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    rows = zlib.compress((b'\0' + b'\x80' * side) * side)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0)) +
            chunk(b'IDAT', rows) + chunk(b'IEND', b''))


class Site(http.server.BaseHTTPRequestHandler):
    """The page; its WebSocket sends everything back."""
    protocol_version = 'HTTP/1.1'
    files = {'/': ('text/html', PAGE), '/style.css': ('text/css', STYLE), '/page.js': ('text/javascript', SCRIPT),
             '/near.png': ('image/png', png(40)), '/back.png': ('image/png', png(16)), '/far.png': ('image/png', png(300))}

    def log_message(self, *_):
        pass

    def do_GET(self):
        if self.path == '/socket':
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.socket()
            return
        kind, body = self.files.get(self.path, ('text/plain', b'nothing'))
        self.send_response(200 if self.path in self.files else 404)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def frame(self):
        """(opcode, payload) of one masked frame."""
        first, second = self.rfile.read(2)
        size = second & 0x7f
        if size >= 126:
            size = int.from_bytes(self.rfile.read(2 if size == 126 else 8), 'big')
        mask = self.rfile.read(4) * (size // 4 + 1)
        return first & 15, bytes(a ^ b for a, b in zip(self.rfile.read(size), mask))

    def socket(self):
        key = self.headers['Sec-WebSocket-Key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
        self.send_response(101)
        for name, value in [('Upgrade', 'websocket'), ('Connection', 'Upgrade'),
                            ('Sec-WebSocket-Accept', base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())]:
            self.send_header(name, value)
        self.end_headers()
        opcode = 0
        while opcode != 8:
            opcode, data = self.frame()
            size = bytes([len(data)]) if len(data) < 126 else b'\x7f' + len(data).to_bytes(8, 'big')
            self.wfile.write(bytes([0x80 | opcode]) + size + data)


@pytest.mark.limit(180)
def test_a_page_with_everything(net, run):
    relay, a, b, local = net
    port = local.serve(HttpThreads, Site)
    run(b, 'web', 'srv', '-p', port)
    run(relay, 'web', 'srv', '-p', port)
    socks = run(a, 'web', '-q', '0', '-p', '0', '--alias', f'friend={b.pk}', '--alias', f'other={relay.pk}',
                '-r', f'127.0.0.1:{closed_port()}').ready['socks_port']  # whatever a browser asks for of its own
    base32 = base64.b32encode(bytes.fromhex(b.pk)).decode().rstrip('=').lower()
    with Browser(a.dir, f'socks5://127.0.0.1:{socks}') as browser:
        for host in ['friend.dmsg', f'{base32}.dmsg', f'blog.{b.pk}.dmsg']:
            found = browser.look(f'http://{host}/', FOUND)
            assert found == {'head': host, 'color': 'rgb(1, 2, 3)', 'near': 40, 'far': 300, 'said': ['100000 xxxxx', '5 hello'],
                             'closed': '1000', 'loaded': ['/back.png', '/far.png', '/near.png', '/page.js', '/style.css']}
        page = browser.look('http://status.dmsg/', 'document.querySelector("h1") && document.body.innerText')
        assert 'kadmsg web' in page and relay.pk in page
    with Browser(local.files, f'http://127.0.0.1:{socks}') as browser:
        assert browser.look('http://friend.dmsg/', FOUND)['said'] == ['100000 xxxxx', '5 hello']
