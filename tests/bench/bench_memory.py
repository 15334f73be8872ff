#!/usr/bin/env python3
"""Memory (RssAnon) of an idle node, what an idle session and an idle relayed stream add, and
what a burst of traffic leaves behind.

Ceiling of the idle node: the load generator's copying relay, a program that does next to nothing
with the same libraries for keys and events. Sessions and streams have no ceiling but zero.
"""
import time

from measure import LISTEN, RUNS, copier, emit, load, median, node, status_kib

SESSIONS = 4000
STREAMS = 8000
SETTLE_S = 3
SESSION_KIB, STREAM_KIB = 6, 1


def idle(server):
    time.sleep(SETTLE_S)
    return {'anon_kib': status_kib(server.pid, 'RssAnon'),
            'peak_rss_kib': status_kib(server.pid, 'VmHWM')}


def sessions_and_streams(sessions, streams):
    runs = []
    for _ in range(min(RUNS, 3)):
        with node(*LISTEN) as server:  # fresh: a used heap would hide what is needed
            runs.append(load(server, 'idle', sessions=sessions, streams=streams, hold=2))
    per_stream = median(runs, 'kib_per_stream')
    emit('idle_session', {'sessions': sessions}, median(runs, 'value'), 'KiB', runs, budget=SESSION_KIB,
         ok=median(runs, 'value') <= SESSION_KIB)
    emit('idle_stream', {'sessions': sessions, 'streams': streams}, per_stream, 'KiB', runs, budget=STREAM_KIB,
         ok=per_stream <= STREAM_KIB)


def main():
    with copier() as bare:
        floor = idle(bare)['anon_kib']
    for role, flags in (('visor', []), ('relay', LISTEN), ('full', [*LISTEN, '--full'])):
        runs = []
        for _ in range(3):
            with node(*flags) as server:
                runs.append(idle(server))
        emit('idle_node', {'role': role}, median(runs, 'anon_kib') / 1024, 'MiB', runs, floor / 1024)

    sessions_and_streams(SESSIONS, STREAMS)
    with node(*LISTEN) as server:
        before = status_kib(server.pid, 'RssAnon')
        run = load(server, 'bulk', pairs=3, streams=50, seconds=2)
        run['left_kib'] = idle(server)['anon_kib'] - before
    emit('left_by_burst', {'pairs': 3, 'streams': 50}, run['left_kib'] / 1024, 'MiB', [run])


if __name__ == '__main__':
    main()
