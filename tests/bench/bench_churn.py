#!/usr/bin/env python3
"""Memory (RssAnon) of the relay while streams come and go: it must not grow with their number.

KADMSG_CHURN_S=200 carries about a million streams on one core; ceiling: what the relay held after the
first of them.
"""
import os
import time

from measure import LISTEN, emit, load, node, status_kib

SECONDS = int(os.environ.get('KADMSG_CHURN_S', '10'))
ROUNDS = 5


def main():
    with node(*LISTEN) as server:
        load(server, 'open', pairs=32, inflight=8, seconds=2)
        time.sleep(3)
        begin = status_kib(server.pid, 'RssAnon')
        runs, streams = [], 0
        for _ in range(ROUNDS):
            seconds = max(1, SECONDS // ROUNDS)
            run = load(server, 'open', pairs=32, inflight=8, seconds=seconds)
            time.sleep(3)
            run['anon_kib'] = status_kib(server.pid, 'RssAnon')
            streams += round(run['value'] * seconds)
            runs.append(run)
        emit('churn_memory', {'streams': streams, 'pairs': 32}, runs[-1]['anon_kib'] / 1024, 'MiB', runs, begin / 1024,
             after_each_mib=[round(r['anon_kib'] / 1024, 2) for r in runs])


if __name__ == '__main__':
    main()
