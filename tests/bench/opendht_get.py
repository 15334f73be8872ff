"""opendht_get.py NODES GETS: gets in a network of OpenDHT nodes in this process, one JSON line; part of bench_dht.

OpenDHT answers a get from several nodes as ours does with all of the closest; it has neither relay nor end-to-end
encryption on the way, and values are put unsigned. Processor time of all its threads counts.
"""
import json
import random
import resource
import sys
import time

import opendht as dht


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(count, gets):
    nodes = []
    for i in range(count):
        node = dht.DhtRunner()
        node.run(port=0)
        if nodes:
            node.bootstrap('127.0.0.1', str(nodes[0].getBound().getPort()))
        nodes.append(node)
    time.sleep(10)
    rnd = random.Random(1)
    keys = [dht.InfoHash.get(f'key {i}') for i in range(100)]
    for i, key in enumerate(keys):
        if not nodes[i % count].put(key, dht.Value(b'v' * 400)):
            raise SystemExit('put failed')
    time.sleep(2)
    for _ in range(50):
        nodes[1 + rnd.randrange(4)].get(rnd.choice(keys))
    idle, begin = cpu(), time.monotonic()
    time.sleep(5)
    idle = (cpu() - idle) / (time.monotonic() - begin)
    before, begin, found = cpu(), time.monotonic(), 0
    for _ in range(gets):
        found += bool(nodes[1 + rnd.randrange(4)].get(rnd.choice(keys)))
    spent = cpu() - before
    spent_less_idle = spent - idle * (time.monotonic() - begin)
    value = spent_less_idle * 1000 / gets
    print(json.dumps({'name': 'opendht_get', 'params': {'nodes': count, 'gets': gets, 'found': found, 'idle_cpu': round(idle, 4)},
                      'value': round(value, 3), 'unit': 'ms', 'cpu_s': round(spent, 3),
                      'peak_rss_kib': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 'ceiling': round(value, 3), 'ratio': 1.0}))


main(int(sys.argv[1]), int(sys.argv[2]))
