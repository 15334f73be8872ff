#!/usr/bin/env python3
"""Two full nodes, real processes and streams.

sync_100k        seconds until a new full node holds 100 000 items of another one, from its start; ceiling: 20 s
sync_cold_serves the same, until a tool that knows only the new node has got 20 of them from it; ceiling: 60 s
sync_reconcile   bytes of answers with which two of them find and repair 10 differences in 100 000; ceiling: 100 000

sync_reconcile_cpu  processor time of both, ms, for the next reconcile, after 10 puts to both: what was changed is read, not the store; ceiling: 50 ms

KADMSG_SYNC_ITEMS sets another number of items.
"""
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'scripts'))

from procs import World, wait_until  # noqa: E402  (needs the path above)

ITEMS = int(os.environ.get('KADMSG_SYNC_ITEMS', '100000'))
DIFFERENT = 10
SERVED = 20
FILL = Path(os.environ['KADMSG_BUILD']) / 'bench/bench_store'


def cpu_s(pid):
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def cpu_ms(*nodes):
    """To the nanosecond, of all threads."""
    return sum(int(task.joinpath('schedstat').read_text().split()[0])
               for node in nodes for task in Path(f'/proc/{node.proc.popen.pid}/task').iterdir()) / 1e6


def rss_kib(pid):
    for line in Path(f'/proc/{pid}/status').read_text().splitlines():
        if line.startswith('VmHWM:'):
            return int(line.split()[1])
    return 0


def fill(node, first, count, seq):
    import subprocess
    subprocess.run([str(FILL), 'fill', str(node.store), str(first), str(count), str(seq)], check=True)


def dht(node):
    return node.cli('dht', 'status', '--json').json


def emit(name, value, unit, node, ceiling, **more):
    print(json.dumps({'name': name, 'params': {'items': ITEMS, **more}, 'value': round(value, 3), 'unit': unit,
                      'cpu_s': round(cpu_s(node.proc.popen.pid), 3), 'peak_rss_kib': rss_kib(node.proc.popen.pid),
                      'ceiling': ceiling, 'ratio': round(value / ceiling, 4)}), flush=True)


def settled(node, items):
    """It holds so many, and the first round of syncs is over."""
    status = dht(node)
    return status['stored_items'] >= items and status['synced']


def serves(world, node):
    """Items from all over the list, by a tool that knows this node only; how many it was asked for."""
    rows = node.cli('dht', 'list', '--json', timeout=120).rows
    sample = rows[::max(1, len(rows) // SERVED)][:SERVED]
    for row in sample:
        got = world.place('tool').cli('dht', 'get', row['k'], row['salt'], '--network', '--bootstrap', node.join, '--json')
        assert got.json['seq'] >= row['seq'], (row, got.json)
    return len(sample)


def main():
    with World(os.environ['KADMSG'], prefix='kadmsg-sync-') as world:
        seq = time.time_ns() - ITEMS
        relay = world.make('relay', '--full', '--listen', '127.0.0.1:0')
        fill(relay, 0, ITEMS, seq)
        relay.up()
        cold = world.make('cold', '--full', '--listen', '127.0.0.1:0', '--bootstrap', relay.join)
        begin = time.monotonic()
        cold.up()
        wait_until(lambda: settled(cold, ITEMS), 300, 'the new node holds everything')
        emit('sync_100k', time.monotonic() - begin, 's', cold, 20, cpu_of_the_other_s=round(cpu_s(relay.proc.popen.pid), 2))
        served = serves(world, cold)
        emit('sync_cold_serves', time.monotonic() - begin, 's', cold, 60, asked=served)
        cold.stop()
        behind = world.make('behind', '--full', '--bootstrap', relay.join)
        fill(behind, DIFFERENT, ITEMS - DIFFERENT, seq)
        behind.up()
        wait_until(lambda: settled(behind, ITEMS) and dht(behind)['reconciled'] > 0, 120, 'the differences are repaired')
        sync = dht(behind)['sync']
        emit('sync_reconcile', sync['bytes'], 'bytes', behind, 100_000, different=DIFFERENT, pulled=sync['pulled'])
        for i in range(DIFFERENT):
            relay.cli('dht', 'put', f'late{i}', 'value')
        begin = cpu_ms(relay, behind)
        report = behind.cli('dht', 'reconcile', relay.pk, '--json').json
        emit('sync_reconcile_cpu', cpu_ms(relay, behind) - begin, 'ms', behind, 50, puts=DIFFERENT, bytes=report['bytes'])


if __name__ == '__main__':
    main()
