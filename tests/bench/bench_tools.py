#!/usr/bin/env python3
"""kadmsg curl from kadmsg http, through the nodes of both and one relay, all on this machine.

Ceiling of the download: the load generator's sealed stream through the same relay, which has one
process for both ends and no files. cpu_s is that of all processes together: relay, two nodes, http,
curl. Only with a core for nearly each of them do the MB/s say what the network would give.
"""
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measure import KADMSG, RUNS, emit, load, median, status_kib

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'scripts'))
from procs import World, sha256_file, wait_until  # noqa: E402  (needs the path above)

GIB = 1 << 30
BLOCK = 1 << 20
PAGES = 20
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


def curl(place, *args, out=subprocess.DEVNULL):
    """(seconds, CPU seconds, largest RssAnon seen in KiB) of one command."""
    start, peak = time.monotonic(), 0
    with subprocess.Popen([KADMSG, 'curl', *args], env=place.env, stdout=out) as proc:
        while os.waitid(os.P_PID, proc.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            try:
                peak = max(peak, status_kib(proc.pid, 'RssAnon'))
            except (OSError, StopIteration):
                pass
            time.sleep(0.005)
        _, status, usage = os.wait4(proc.pid, 0)
        proc.returncode = os.waitstatus_to_exitcode(status)
    if proc.returncode != 0:
        raise SystemExit(f'curl {args}: exit code {proc.returncode}')
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, peak


def make_file(path):
    block = os.urandom(BLOCK)
    with open(path, 'wb') as f:
        for i in range(GIB // BLOCK):
            f.write(i.to_bytes(8, 'big') + block[8:])


def download(relay, visor, url, pids, source):
    results, ceiling, got = [], [], visor.dir / 'got'
    for _ in range(RUNS):
        before = cpu_s(pids)
        seconds, own, peak = curl(visor, '-r', '-o', got, url)
        results.append({'mb_per_s': GIB / 1e6 / seconds, 'server_cpu_s': cpu_s(pids) - before + own,
                        'peak_rss_kib': status_kib(pids[-1], 'RssAnon'), 'curl_kib': peak})
        ceiling.append(load(Relay(relay), 'bulk', write=65536, seconds=2, e2e=True))
    if sha256_file(got) != sha256_file(source):
        raise SystemExit('not the bytes that were sent')
    emit('tools_download', {'bytes': GIB}, median(results, 'mb_per_s'), 'MB/s', results,
         median(ceiling, 'value'), cpu_s_per_gib=round(median(results, 'server_cpu_s'), 3),
         curl_rss_anon_kib=max(r['curl_kib'] for r in results),
         http_rss_anon_kib=max(r['peak_rss_kib'] for r in results))


def small_page(visor, url, pids):
    before = cpu_s(pids)
    runs = [curl(visor, url) for _ in range(PAGES)]
    results = [{'server_cpu_s': cpu_s(pids) - before, 'peak_rss_kib': max(r[2] for r in runs)}]
    emit('tools_small_page', {'pages': PAGES, 'of': 'start of curl to its end'},
         statistics.median(r[0] for r in runs) * 1000, 'ms', results)


def main():
    with World(KADMSG, prefix='kadmsg-bench-') as world:
        relay = world.node('relay', '--full', '--listen', '127.0.0.1:0')
        server, visor = (world.node(name, '--bootstrap', relay.join) for name in 'ab')
        www = server.dir / 'www'
        www.mkdir()
        (www / 'page').write_text('a small page\n' * 20)
        make_file(www / 'big')
        http = server.start('http', '--dir', www, '--ready', '--quiet')
        http.wait_ready()
        url = f'dmsg://{server.pk}'
        wait_until(lambda: visor.try_cli('curl', f'{url}/page').code == 0, 20, 'served')
        pids = [relay.proc.pid, server.proc.pid, visor.proc.pid, http.pid]
        small_page(visor, f'{url}/page', pids)
        download(relay, visor, f'{url}/big', pids, www / 'big')


if __name__ == '__main__':
    main()
