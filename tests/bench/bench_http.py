#!/usr/bin/env python3
"""The discovery over HTTP: processor time of `kadmsg disc` for each request, driven by wrk (package wrk).

Ceiling: the same libmicrohttpd answering /health of the same process in the same run. cpu_us is the server's processor time over the number of answers; so it does not
depend on what else the machine does. Entries are signed before the run; each POST is the first registration of a key, verified, and on disk (LMDB, group commit) when it is
answered.

Memory: VmRSS counts the pages of the store that were looked at lately, which are the kernel's cache of its file; anon_mib is what the process owns.
"""
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import http_tpd
from measure import KADMSG, KADMSG_LOAD, emit, status_kib

SECONDS, SETTLE_S, CONNECTIONS, CLIENTS, SERVERS, POSTS = 4, 12, 32, 10000, 500, 60000
GET_US, POST_US, MIRRORED_US, LIST_US, CLIENTS_MIB = 30, 100, 150, 300, 30  # budgets
RUNS = int(os.environ.get('KADMSG_BENCH_RUNS', '3'))
TICKS = os.sysconf('SC_CLK_TCK')

POST_LUA = '''
local bodies, n = {}, 0
function init(args)
  for line in io.lines(args[1]) do bodies[#bodies + 1] = line end
end
function request()
  n = n + 1
  if n > #bodies then wrk.thread:stop() end
  return wrk.format("POST", "/dmsg-discovery/entry/", nil, bodies[(n - 1) % #bodies + 1])
end
'''


def cpu_s(pid):
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def entries(count, servers=False):
    return subprocess.run([KADMSG_LOAD, 'entries', '--count', str(count)] + (['--bare'] if servers else []),
                          stdout=subprocess.PIPE, check=True).stdout.decode().splitlines()


class Disc:
    def __init__(self, folder, *flags):
        self.proc = subprocess.Popen([KADMSG, 'disc', '-a', '127.0.0.1:0', '--store', folder, '--ready', '--log-level', 'error',
                                      '-m', '127.0.0.1:0', *flags], stdout=subprocess.PIPE, text=True)
        ready = json.loads(self.proc.stdout.readline())
        self.url, self.metrics = 'http://' + ready['http'], 'http://' + ready['metrics']
        self.pid = self.proc.pid

    def mirror(self, name):
        """A number of the mirror; 0 without one."""
        text = urllib.request.urlopen(f'{self.metrics}/metrics', timeout=60).read().decode()
        found = re.search(rf'^kadmsg_disc_mirror_{name} (\d+)', text, re.M)
        return int(found[1]) if found else 0

    def post(self, lines):
        def one(line):
            request = urllib.request.Request(f'{self.url}/dmsg-discovery/entry/', data=line.encode(), method='POST')
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            assert set(pool.map(one, lines)) == {200}

    def wrk(self, path, *script):
        """(answers, refused, processor seconds of the server, wall seconds)"""
        before, start = cpu_s(self.pid), time.monotonic()
        out = subprocess.run(['wrk', '-t1', f'-c{256 if script else CONNECTIONS}', f'-d{SECONDS}s', *script[:2], self.url + path, *script[2:]],
                             stdout=subprocess.PIPE, check=True).stdout.decode()
        while self.mirror('waiting') > 0:  # what was answered has to reach the DHT too
            time.sleep(0.05)
        used, wall = cpu_s(self.pid) - before, time.monotonic() - start
        answers = int(re.search(r'(\d+) requests in', out)[1])
        refused = re.search(r'Non-2xx or 3xx responses: (\d+)', out)
        return answers, int(refused[1]) if refused else 0, used, wall

    def stop(self):
        self.proc.terminate()
        self.proc.wait(20)


def measure(disc, path, *script):
    """Medians by processor time of RUNS runs."""
    runs = []
    for _ in range(RUNS):
        answers, refused, used, wall = disc.wrk(path, *script)
        runs.append({'cpu_us': used * 1e6 / max(answers, 1), 'answers': answers, 'refused': refused, 'server_cpu_s': used,
                     'wall_s': wall, 'peak_rss_kib': status_kib(disc.pid, 'VmHWM')})
    return sorted(runs, key=lambda r: r['cpu_us'])[len(runs) // 2], runs


def measure_posts(disc, tmp):
    """Medians by processor time of RUNS runs of first registrations."""
    lua, bodies = Path(tmp) / 'post.lua', Path(tmp) / 'bodies'
    lua.write_text(POST_LUA)
    posts = []
    for _ in range(RUNS):
        bodies.write_text('\n'.join(entries(POSTS)) + '\n')
        answers, refused, used, wall = disc.wrk('/', '-s', str(lua), '--', str(bodies))
        posts.append({'cpu_us': used * 1e6 / max(answers, 1), 'answers': answers, 'refused': refused, 'server_cpu_s': used,
                      'wall_s': wall, 'peak_rss_kib': status_kib(disc.pid, 'VmHWM'), 'signatures': disc.mirror('signatures_total')})
    return sorted(posts, key=lambda r: r['cpu_us'])[len(posts) // 2], posts


class FullNode:
    """Where a discovery of this key mirrors to."""

    def __init__(self, tmp):
        self.key = f'{tmp}/mirror.key'
        made = subprocess.run([KADMSG, 'keys', 'gen', '-o', self.key, '--json'], stdout=subprocess.PIPE, check=True).stdout
        self.proc = subprocess.Popen([KADMSG, 'node', '--full', '--listen', '127.0.0.1:0', '--store', f'{tmp}/full', '--ready',
                                      '--control', f'{tmp}/full.control', '--mirror', json.loads(made)['public_key'],
                                      '--log-level', 'error'], stdout=subprocess.PIPE, text=True)
        ready = json.loads(self.proc.stdout.readline())
        self.flags = ['--keyfile', self.key, '--bootstrap', f'{ready["public_key"]}@{ready["relay"]}']

    def stop(self):
        self.proc.terminate()
        self.proc.wait(20)


def report(name, params, run, runs, ceiling, budget):
    emit(name, params, run['cpu_us'], 'us', runs, ceiling, budget=budget, ok=budget is None or run['cpu_us'] <= budget,
         answers_per_s=round(run['answers'] / run['wall_s']), refused=run['refused'])


def main():
    if shutil.which('wrk') is None:
        raise SystemExit('bench http needs wrk (apt-get install wrk)')
    with tempfile.TemporaryDirectory(prefix='kadmsg-bench-') as tmp:
        disc = Disc(f'{tmp}/disc')
        health, runs = measure(disc, '/health')
        ceiling = health['cpu_us']
        report('http health', {}, health, runs, None, None)
        idle = status_kib(disc.pid, 'VmRSS')
        clients = entries(CLIENTS)
        run, posts = measure_posts(disc, tmp)
        report('http signed POST', {'store': 'lmdb'}, run, posts, ceiling, POST_US)
        disc.stop()

        full = FullNode(tmp)
        disc = Disc(f'{tmp}/mirrored', *full.flags)
        run, posts = measure_posts(disc, tmp)
        report('http signed POST, mirrored', {'store': 'lmdb', 'to': 'a full node'}, run, posts, ceiling, MIRRORED_US)
        disc.stop()
        full.stop()

        disc = Disc(f'{tmp}/second')
        before = status_kib(disc.pid, 'VmRSS')
        disc.post(clients)
        samples = []
        for _ in range(SETTLE_S):  # its looks at the whole store come every 10 s
            time.sleep(1)
            samples.append(status_kib(disc.pid, 'VmRSS'))
        rss = statistics.median(samples)
        emit('http memory of registered clients', {'clients': CLIENTS}, rss / 1024, 'MiB', [{'peak_rss_kib': status_kib(disc.pid, 'VmHWM')}],
             budget=CLIENTS_MIB, ok=rss / 1024 < CLIENTS_MIB, empty_mib=round(before / 1024, 2), most_mib=round(max(samples) / 1024, 2), anon_mib=round(status_kib(disc.pid, 'RssAnon') / 1024, 2), idle_mib=round(idle / 1024, 2))
        pk = json.loads(clients[0])['static']
        run, runs = measure(disc, f'/dmsg-discovery/entry/{pk}')
        report('http GET entry', {'clients': CLIENTS}, run, runs, ceiling, GET_US)
        disc.post(entries(SERVERS, servers=True))
        run, runs = measure(disc, '/dmsg-discovery/available_servers')
        report('http available_servers', {'servers': SERVERS}, run, runs, ceiling, LIST_US)
        disc.stop()
        http_tpd.run(tmp, ceiling, cpu_s)


main()
