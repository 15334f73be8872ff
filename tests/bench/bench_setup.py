#!/usr/bin/env python3
"""Processor time of the relay for a new session and for a new stream.

Ceilings: the curve operations alone. A session is three ECDH and one key pair; a stream is two
signature checks, and one relayed round trip of a small message.
"""
from measure import LISTEN, RUNS, emit, load, median, node

SESSION_MS, STREAM_MS = 0.3, 0.17


def main():
    with node(*LISTEN) as server:
        floor = load(None, 'floor')
        count = 2000
        runs = [load(server, 'sess', count=count, inflight=64) for _ in range(RUNS)]
        emit('session_setup', {'inflight': 64, 'count': count},
             median(runs, 'server_cpu_ms_per_session'), 'ms', runs,
             (3 * floor['ecdh_us'] + floor['keypair_us']) / 1e3, budget=SESSION_MS,
             ok=median(runs, 'server_cpu_ms_per_session') <= SESSION_MS,
             sessions_per_s=round(median(runs, 'value')), p99_ms=median(runs, 'p99_ms'))

        round_trip = 2 * load(server, 'ping', size=64, count=5000)['server_cpu_us_per_message']
        runs = [load(server, 'open', pairs=64, inflight=32, seconds=2) for _ in range(RUNS)]
        emit('stream_setup', {'pairs': 64, 'inflight': 32},
             median(runs, 'server_cpu_ms_per_stream'), 'ms', runs,
             (2 * floor['verify_us'] + round_trip) / 1e3, budget=STREAM_MS,
             ok=median(runs, 'server_cpu_ms_per_stream') <= STREAM_MS,
             streams_per_s=round(median(runs, 'value')), p99_ms=median(runs, 'p99_ms'))


if __name__ == '__main__':
    main()
