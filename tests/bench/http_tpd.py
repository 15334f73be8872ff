"""The transport discovery's part of bench_http.py: first registrations, and the same again unchanged, which is what all visors do every 90 s.

Each is one signed entry in a batch of one, with httpauth; the first ones are on disk (LMDB, group commit) when they are answered.
Budgets: a signed POST 100 us, 50 000 unchanged re-registrations 5 s of processor time.
"""
import json
import os
import re
import subprocess
from pathlib import Path

from measure import KADMSG, KADMSG_LOAD, emit, status_kib

SECONDS, CALLERS, AGAIN = 4, 40000, 50000
POST_US, AGAIN_S = 100, 5
RUNS = int(os.environ.get('KADMSG_BENCH_RUNS', '3'))

LUA = '''
local requests, n, once = {}, 0, false
function init(args)
  once = args[2] == "once"
  for line in io.lines(args[1]) do
    local pk, sig, body = line:match("^(%S+) (%S+) (.*)$")
    requests[#requests + 1] = wrk.format("POST", "/transports/", {["SW-Public"] = pk, ["SW-Nonce"] = "0", ["SW-Sig"] = sig}, body)
  end
end
function request()
  n = n + 1
  if once and n > #requests then wrk.thread:stop() end
  return requests[(n - 1) % #requests + 1]
end
'''


class Tpd:
    def __init__(self, folder):
        self.proc = subprocess.Popen([KADMSG, 'tpd', '-a', '127.0.0.1:0', '--store', folder, '--ready', '--rate', '0',
                                      '--log-level', 'error'], stdout=subprocess.PIPE, text=True)
        self.url = 'http://' + json.loads(self.proc.stdout.readline())['http']
        self.pid = self.proc.pid

    def stop(self):
        self.proc.terminate()
        self.proc.wait(20)


def drive(tpd, cpu_s, lua, lines, once):
    """One run of wrk."""
    before = cpu_s(tpd.pid)
    out = subprocess.run(['wrk', '-t1', '-c256', f'-d{SECONDS}s', '-s', lua, tpd.url, '--', lines, 'once' if once else 'again'],
                         stdout=subprocess.PIPE, check=True).stdout.decode()
    answers = int(re.search(r'(\d+) requests in', out)[1])
    refused = re.search(r'Non-2xx or 3xx responses: (\d+)', out)
    used = cpu_s(tpd.pid) - before
    return {'cpu_us': used * 1e6 / max(answers, 1), 'answers': answers, 'refused': int(refused[1]) if refused else 0,
            'server_cpu_s': used, 'peak_rss_kib': status_kib(tpd.pid, 'VmHWM')}


def median(runs):
    return sorted(runs, key=lambda r: r['cpu_us'])[len(runs) // 2]


def run(tmp, ceiling, cpu_s):
    lua, lines = Path(tmp) / 'tpd.lua', Path(tmp) / 'transports'
    lua.write_text(LUA)
    first, again = [], []
    for i in range(RUNS):
        tpd = Tpd(f'{tmp}/tpd{i}')
        lines.write_bytes(subprocess.run([KADMSG_LOAD, 'transports', '--count', str(CALLERS)], stdout=subprocess.PIPE, check=True).stdout)
        first.append(drive(tpd, cpu_s, str(lua), str(lines), True))
        known = lines.read_bytes().splitlines(keepends=True)[:first[-1]['answers'] // 2]
        lines.write_bytes(b''.join(known))  # those that were taken for sure
        again.append(drive(tpd, cpu_s, str(lua), str(lines), False))
        tpd.stop()
    best = median(first)
    emit('http tpd, first registration', {'store': 'lmdb'}, best['cpu_us'], 'us', first, ceiling, budget=POST_US,
         ok=best['cpu_us'] <= POST_US, refused=best['refused'])
    best = median(again)
    cpu = best['cpu_us'] * AGAIN / 1e6
    emit('http tpd, unchanged registrations again', {'store': 'lmdb', 'count': AGAIN}, cpu, 's', again, None, budget=AGAIN_S,
         ok=cpu <= AGAIN_S, each_us=round(best['cpu_us'], 1), refused=best['refused'])
