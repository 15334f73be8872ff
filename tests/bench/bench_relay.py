#!/usr/bin/env python3
"""Every budget of the relay, one line each: `budget` is what it may be, `ok` whether it is.

The server has one core and the driver another one, but where two workers are compared with one.
Bytes and round trips: the ceiling is a relay that only copies bytes, with reads of the same size,
driven by the same clients with the same frames; runs alternate, so that a disturbance hits both, and
the ratio is the median of the ratios of neighbours. `driver_bound` says that the driver had no time
left. End to end: the ceiling is one core that does nothing but seal and open, as the clients are one
thread; on a machine that is busy with other work, what they do in a second of their own processor time
says more than what they do in a second. Sessions, streams and memory: bench_setup.py, bench_memory.py.
"""
import os
import statistics
import time

import bench_memory
import bench_setup
from measure import (DRIVER_CORES, LISTEN, RUNS, SERVER_CORES, copier, driver_bound, emit, load, median, node,
                     status_kib)

SECONDS = 2
SHAPES = [({'write': 4096, 'pairs': 1, 'streams': 1}, 1.25), ({'write': 4096, 'pairs': 8, 'streams': 4}, 1.25),
          ({'write': 65536, 'pairs': 1, 'streams': 1}, 1.1), ({'write': 65536, 'pairs': 8, 'streams': 4}, 1.1)]
PING_BUDGET, WORKERS_BUDGET, E2E_BUDGET, IDLE_BUDGET = 1.2, 1.2, 350, 1
IDLE_SESSIONS, IDLE_S = 5000, 20
ALL_S = 'server_cpu_s_per_gib'


def alternate(runs, *servers, mode, **params):
    """Runs against each server in turn: a list of results for each of them."""
    results = [[] for _ in servers]
    for _ in range(runs):
        for (server, more), into in zip(servers, results):
            into.append(load(server, mode, **more, **params))
    return results


def compare(name, params, ours, ceiling, member, unit, budget, **more):
    ratio = statistics.median(a[member] / b[member] for a, b in zip(ours, ceiling))
    emit(name, params, median(ours, member), unit, ours, median(ceiling, member), budget=budget,
         median_ratio=round(ratio, 3), ok=ratio <= budget, driver_bound=driver_bound(ours),
         load_average=os.getloadavg()[0], **more)


def bytes_and_round_trips():
    pinned = {'cores': DRIVER_CORES}
    with node(*LISTEN, '--workers', '1', cores=SERVER_CORES) as server, copier(SERVER_CORES) as bare:
        servers = (server, pinned), (bare, {**pinned, 'bare': True})
        for shape, budget in SHAPES:
            ours, ceiling = alternate(RUNS, *servers, mode='bulk', seconds=SECONDS, **shape)
            compare('relay_bulk', shape, ours, ceiling, ALL_S, 's/GiB', budget,
                    mb_per_s=round(median(ours, 'value')), ceiling_mb_per_s=round(median(ceiling, 'value')))
        for size in (64, 4096):
            ours, ceiling = alternate(RUNS, *servers, mode='ping', size=size, count=5000)
            compare('relay_ping', {'size': size}, ours, ceiling, 'value', 'us', PING_BUDGET,
                    server_cpu_us=median(ours, 'server_cpu_us_per_message'))
        crypto = load(None, 'floor')['seal_and_open_us_per_kib'] * 1024 * 1024 / 1e6
        for write in (4096, 65536):
            ours = [load(server, 'bulk', write=write, seconds=SECONDS, e2e=True, **pinned)
                    for _ in range(RUNS)]
            value = median(ours, 'value')
            emit('end_to_end', {'write': write, 'streams': 1}, value, 'MB/s', ours, 2**30 / 1e6 / crypto,
                 budget=E2E_BUDGET, ok=value >= E2E_BUDGET, driver_bound=driver_bound(ours),
                 load_average=os.getloadavg()[0],
                 mb_per_cpu_s_of_both_ends=round(2**30 / 1e6 / median(ours, 'driver_cpu_s_per_gib')))
            emit('end_to_end_cpu', {'write': write, 'streams': 1, 'of': 'both ends'},
                 median(ours, 'driver_cpu_s_per_gib'), 's/GiB', ours, crypto)


def two_workers():
    """Half of the streams pass both of them. No cores are given away: two need more than one."""
    with node(*LISTEN, '--workers', '2') as two, node(*LISTEN, '--workers', '1') as one:
        for shape, _ in SHAPES[1::2]:
            ours, ceiling = alternate(RUNS, (two, {}), (one, {}), mode='bulk', seconds=SECONDS, **shape)
            compare('relay_two_workers', shape, ours, ceiling, ALL_S, 's/GiB', WORKERS_BUDGET,
                    mb_per_s=round(median(ours, 'value')), ceiling_mb_per_s=round(median(ceiling, 'value')))


def cpu_s(pid):
    with open(f'/proc/{pid}/stat', encoding='ascii') as stat:
        fields = stat.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def idle_cpu():
    """Of a relay whose sessions say nothing but their keep-alive; measured from a third process."""
    with node(*LISTEN, cores=SERVER_CORES) as server:
        run = {'peak_rss_kib': 0}
        pid = os.fork()
        if pid == 0:
            load(server, 'idle', sessions=IDLE_SESSIONS, streams=0, hold=IDLE_S + 15, cores=DRIVER_CORES)
            os._exit(0)
        while sessions_of(server) < IDLE_SESSIONS:
            time.sleep(0.5)
        time.sleep(5)
        before, since = cpu_s(server.pid), time.monotonic()
        time.sleep(IDLE_S)
        percent = (cpu_s(server.pid) - before) / (time.monotonic() - since) * 100
        run['peak_rss_kib'] = status_kib(server.pid, 'VmHWM')
        os.waitpid(pid, 0)
    emit('idle_cpu', {'sessions': IDLE_SESSIONS, 'seconds': IDLE_S}, percent, '% of a core', [run],
         budget=IDLE_BUDGET, ok=percent < IDLE_BUDGET)


def sessions_of(server):
    """Sockets that it has."""
    return len(os.listdir(f'/proc/{server.pid}/fd'))


def main():
    bytes_and_round_trips()
    two_workers()
    bench_setup.main()
    idle_cpu()
    bench_memory.sessions_and_streams(5000, 20000)


if __name__ == '__main__':
    main()
