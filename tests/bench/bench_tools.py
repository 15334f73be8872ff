#!/usr/bin/env python3
"""The tools between the nodes of two sides and one relay, all on this machine: curl from http, and both through the proxies.

Ceiling of the transfers: the load generator's sealed stream through the same relay, in the same run, which has one
process for both ends and no files. cpu_s is that of all processes together: relay, two nodes, http or web srv, and
curl with web where it is used. Only with a core for nearly each of them do the MB/s say what the network would give.

Budgets: download 250 MB/s and 8 MiB RssAnon each; first byte 30 ms; 1 000 proxied connections in 40 MiB RssAnon.
"""
import contextlib
import os
import socket
import socketserver
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from measure import KADMSG, RUNS, emit, load, median, status_kib

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'scripts'))
from procs import World, sha256_file, wait_until  # noqa: E402  (needs the path above)

GIB = 1 << 30
BLOCK = 1 << 20
PAGES = 20
CONNECTIONS, BATCH = 1000, 100
TICKS = os.sysconf('SC_CLK_TCK')


class Relay:
    """As the load generator wants it."""

    def __init__(self, node):
        self.addr, self.pk, self.pid = node.relay, node.pk, node.proc.pid


def cpu_s(pids):
    def of(pid):
        fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
    return sum(map(of, pids))


def timed(argv, env=None, out=subprocess.DEVNULL):
    """(seconds, CPU seconds, largest RssAnon seen in KiB) of one command."""
    start, peak = time.monotonic(), 0
    with subprocess.Popen(argv, env=env, stdout=out) as proc:
        while os.waitid(os.P_PID, proc.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            with contextlib.suppress(OSError, StopIteration):
                peak = max(peak, status_kib(proc.pid, 'RssAnon'))
            time.sleep(0.005)
        _, status, usage = os.wait4(proc.pid, 0)
        proc.returncode = os.waitstatus_to_exitcode(status)
    if proc.returncode != 0:
        raise SystemExit(f'{argv}: exit code {proc.returncode}')
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, peak


def curl(place, *args):
    return timed([KADMSG, 'curl', *map(str, args)], place.env)


def make_file(path):
    block = os.urandom(BLOCK)
    with open(path, 'wb') as f:
        for i in range(GIB // BLOCK):
            f.write(i.to_bytes(8, 'big') + block[8:])


class Site:
    """The nodes, what serves on the one side, and a proxy on the other."""

    def __init__(self, world):
        self.relay = world.node('relay', '--full', '--listen', '127.0.0.1:0')
        self.server, self.visor = (world.node(name, '--bootstrap', self.relay.join) for name in 'ab')
        www = self.server.dir / 'www'
        www.mkdir()
        (www / 'page').write_text('a small page\n' * 20)
        self.big = www / 'big'
        make_file(self.big)
        self.http = self.start(self.server, 'http', '--dir', www, '--quiet', '--max-conns', '4096', '--max-per-key', '4096')
        self.web = self.start(self.visor, 'web', '-q', '0', '-p', '0', '--alias', 'site=' + self.server.pk, '--max-conns', '2000')
        self.proxy = self.web.ready['socks_port']
        self.url = f'dmsg://{self.server.pk}'
        wait_until(lambda: self.visor.try_cli('curl', f'{self.url}/page').code == 0, 20, 'served')
        self.nodes = [self.relay.proc.pid, self.server.proc.pid, self.visor.proc.pid]

    @staticmethod
    def start(place, *args):
        proc = place.start(*args, '--ready')
        proc.wait_ready()
        return proc

    def ceiling(self):
        return load(Relay(self.relay), 'bulk', write=65536, seconds=2, e2e=True)['value']


def transfers(site, name, pids, run):
    """run() moves 1 GiB and returns what timed() does; the process that is measured beside it is the last of pids."""
    results, ceiling = [], []
    for _ in range(RUNS):
        before = cpu_s(pids)
        seconds, own, peak = run()
        results.append({'mb_per_s': GIB / 1e6 / seconds, 'server_cpu_s': cpu_s(pids) - before + own,
                        'peak_rss_kib': status_kib(pids[-1], 'RssAnon'), 'client_kib': peak})
        ceiling.append(site.ceiling())
    emit(name, {'bytes': GIB, 'load': round(os.getloadavg()[0], 1)}, median(results, 'mb_per_s'), 'MB/s', results,
         statistics.median(ceiling), cpu_s_per_gib=round(median(results, 'server_cpu_s'), 3),
         client_rss_anon_kib=max(r['client_kib'] for r in results),
         server_rss_anon_kib=max(r['peak_rss_kib'] for r in results))


def download(site):
    """To /dev/null: what the network gives; and to a new file, whose pages cost a quarter more."""
    got, pids = site.visor.dir / 'got', [*site.nodes, site.http.pid]

    def to_file():
        got.unlink(missing_ok=True)
        return curl(site.visor, '-o', got, f'{site.url}/big')

    transfers(site, 'tools_download', pids, lambda: curl(site.visor, '-o', '/dev/null', f'{site.url}/big'))
    transfers(site, 'tools_download_to_file', pids, to_file)
    if sha256_file(got) != sha256_file(site.big):
        raise SystemExit('not the bytes that were sent')
    got.unlink()


class Sink(socketserver.StreamRequestHandler):
    """Takes a PUT and says yes; the bytes stay in the kernel where that is possible."""

    def handle(self):
        left, line = 0, b'PUT'
        while line.strip():
            line = self.rfile.readline()
            if line.lower().startswith(b'content-length:'):
                left = int(line.split(b':')[1])
        left -= len(self.rfile.read1(left))
        buffer = bytearray(BLOCK)
        while left > 0 and (n := self.connection.recv_into(buffer, min(left, BLOCK))):
            left -= n
        self.wfile.write(b'HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n')


def upload(site):
    sink = socketserver.ThreadingTCPServer(('127.0.0.1', 0), Sink)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    srv = site.start(site.server, 'web', 'srv', '-p', sink.server_address[1], '-d', '81')
    transfers(site, 'tools_upload', [*site.nodes, srv.pid], lambda: curl(site.visor, '-T', site.big, f'{site.url}:81/up'))
    srv.stop()
    sink.shutdown()
    sink.server_close()


def proxied(site):
    """The ordinary curl through kadmsg web."""
    argv = ['curl', '-sS', '-f', '-x', f'socks5h://127.0.0.1:{site.proxy}', '-o', '/dev/null', 'http://site.dmsg/big']
    transfers(site, 'tools_proxied', [*site.nodes, site.http.pid, site.web.pid], lambda: timed(argv))


def small_page(site):
    pids = [*site.nodes, site.http.pid]
    before = cpu_s(pids)
    runs = [curl(site.visor, f'{site.url}/page') for _ in range(PAGES)]
    results = [{'server_cpu_s': cpu_s(pids) - before, 'peak_rss_kib': max(r[2] for r in runs)}]
    emit('tools_small_page', {'pages': PAGES, 'of': 'start of curl to its end'},
         statistics.median(r[0] for r in runs) * 1000, 'ms', results)


def ask(site, path):
    """A new connection of the proxy, its request sent."""
    s = socket.create_connection(('127.0.0.1', site.proxy), 20)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    name = b'site.dmsg'
    s.sendall(b'\5\1\0\5\1\0\3' + bytes([len(name)]) + name + b'\0\x50' + f'GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n'.encode())
    return s


def first_byte(site):
    """From connect() to the first byte of the answer."""
    times = []
    for _ in range(PAGES):
        start = time.monotonic()
        with ask(site, 'page') as s:
            seen = b''
            while b'HTTP' not in seen:
                seen += s.recv(4096)
            times.append(time.monotonic() - start)
    emit('tools_proxy_first_byte', {'pages': PAGES}, statistics.median(times) * 1000, 'ms',
         [{'peak_rss_kib': status_kib(site.web.pid, 'RssAnon')}])


def connections(site, path, name):
    """MiB of the proxy with CONNECTIONS at once: after a small page each, or with a big file under way that nobody reads."""
    opened = []
    while len(opened) < CONNECTIONS:  # not all in the same instant: the handshakes are not what is measured
        fresh = [ask(site, path) for _ in range(BATCH)]
        opened += fresh
        for s in fresh:
            seen = b''
            while b'HTTP' not in seen and (piece := s.recv(64)):
                seen += piece
            if b'HTTP' not in seen:
                raise SystemExit(f'{name}: a connection was refused')
    time.sleep(2)  # until what is coming has come
    kib = status_kib(site.web.pid, 'RssAnon')
    for s in opened:
        s.close()
    emit(name, {'connections': CONNECTIONS}, kib / 1024, 'MiB', [{'peak_rss_kib': kib}])


def main():
    with World(KADMSG, prefix='kadmsg-bench-') as world:
        site = Site(world)
        small_page(site)
        first_byte(site)
        download(site)
        upload(site)
        proxied(site)
        connections(site, 'page', 'tools_proxy_1000_idle')
        connections(site, 'big', 'tools_proxy_1000_stalled')


if __name__ == '__main__':
    main()
