#!/usr/bin/env python3
"""Bytes through the relay: processor time per GiB, round trips, and sealed end to end.

Ceiling of bulk and ping: a relay that only copies bytes, with reads of the same size, driven by the
same clients with the same frames; runs alternate, so that a disturbance hits both. Ceiling of
end-to-end: one core that does nothing but seal and open, as the clients are one thread. Its MB/s
need a second core for the relay and suffer from whatever else the machine does; the processor time
of the ends does not.
"""
from measure import LISTEN, RUNS, copier, emit, load, median, node

SECONDS = 2
SHAPES = [{'write': 4096, 'pairs': 1, 'streams': 1}, {'write': 4096, 'pairs': 4, 'streams': 4},
          {'write': 65536, 'pairs': 1, 'streams': 1}, {'write': 65536, 'pairs': 4, 'streams': 4}]
ALL_S = 'server_cpu_s_per_gib'


def both(server, bare, runs, mode, **params):
    ours, ceiling = [], []
    for _ in range(runs):
        ours.append(load(server, mode, **params))
        ceiling.append(load(bare, mode, bare=True, **params))
    return ours, ceiling


def main():
    with node(*LISTEN) as server, copier() as bare:
        for shape in SHAPES:
            ours, ceiling = both(server, bare, RUNS, 'bulk', seconds=SECONDS, **shape)
            emit('relay_bulk', shape, median(ours, ALL_S), 's/GiB', ours, median(ceiling, ALL_S),
                 mb_per_s=round(median(ours, 'value')),
                 ceiling_mb_per_s=round(median(ceiling, 'value')))
        for size in (64, 4096):
            ours, ceiling = both(server, bare, RUNS, 'ping', size=size, count=5000)
            emit('relay_ping', {'size': size}, median(ours, 'value'), 'us', ours,
                 median(ceiling, 'value'), server_cpu_us=median(ours, 'server_cpu_us_per_message'))
        crypto = load(None, 'floor')['seal_and_open_us_per_kib'] * 1024 * 1024 / 1e6
        for write in (4096, 65536):
            ours = [load(server, 'bulk', write=write, seconds=SECONDS, e2e=True)
                    for _ in range(RUNS)]
            emit('end_to_end', {'write': write, 'streams': 1}, median(ours, 'value'), 'MB/s', ours,
                 2**30 / 1e6 / crypto)
            emit('end_to_end_cpu', {'write': write, 'streams': 1, 'of': 'both ends'},
                 median(ours, 'driver_cpu_s_per_gib'), 's/GiB', ours, crypto)


if __name__ == '__main__':
    main()
