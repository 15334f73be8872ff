#!/usr/bin/env python3
"""make demo: a private network on this machine, with no Redis and no HTTP service.

One full node (relay, DHT, LMDB store) and five visor-side nodes, all separate processes on 127.0.0.1
in a temporary directory. The last line is one JSON object; exit code 0 only if everything held.
"""
import argparse
import json
import os
import signal
import sys
import threading
import time

from procs import Failed, World, sha256_file, wait_until

VISORS = 5
FILE_BYTES = 64 << 20
SECOND_FILE_BYTES = 8 << 20
RECOVERY_S = 10
PORT = 1234
LOOKUPS = ('cache', 'dht', 'http', 'miss')
BEGIN = time.monotonic()


def say(text=''):
    print(text, flush=True)


def step(title, *lines):
    say(f'\n[{time.monotonic() - BEGIN:4.1f} s] {title}')
    for line in lines:
        say(f'  {line}')


def table(head, rows):
    rows = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    say()
    for row in rows:
        say('  ' + '  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def short(pk):
    return pk[:8]


def each(nodes, call):
    """Run call(node) for all nodes at the same time; the results in order, or the first failure."""
    results, errors = [None] * len(nodes), []

    def run(i):
        try:
            results[i] = call(nodes[i])
        except Exception as error:  # handed on below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(nodes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


class Demo:
    def __init__(self, world):
        self.world = world
        self.summary = {'event': 'demo', 'ok': False, 'nodes': 0, 'lookups': dict.fromkeys(LOOKUPS, 0),
                        'transferred_bytes': 0, 'recovery_s': None}
        self.nodes = []

    # ---- pieces ----

    def start(self, name, *flags):
        node = self.world.node(name, *flags)
        self.nodes.append(node)
        self.summary['nodes'] += 1
        return node

    def count_lookups(self, node):
        """A node counts its look-ups by source as long as it lives: read them before it ends."""
        lookups = node.status['lookups']
        for source in LOOKUPS:
            self.summary['lookups'][source] += lookups[source]

    @staticmethod
    def items(node, *args):
        """(key, salt) -> seq of everything in a node's store."""
        return {(row['k'], row['salt']): row['seq'] for row in node.cli('dht', 'list', *args, '--json').rows}

    @staticmethod
    def look_up(asker, node):
        answer = asker.cli('entry', 'get', node.pk, '--network', '--json').json
        if answer['entry']['static'] != node.pk:
            raise Failed(f'{asker.name} got another entry than that of {node.name}: {answer}')
        return answer

    def look_up_all(self, nodes):
        """Every node asks for the entry of every other one."""
        def row(asker):
            cells = [asker.name]
            for node in nodes:
                if node is asker:
                    cells.append('-')
                    continue
                a = self.look_up(asker, node)
                cells.append(f'{a["source"]}, {a.get("hops", 0)} hops, {a.get("ms", 0):.0f} ms')
            return cells

        table(['who asks', *(f'for {node.name}' for node in nodes)], [row(node) for node in nodes])

    def transfer(self, source, destination, size):
        path = self.world.dir / 'file'
        with open(path, 'wb') as f:
            for _ in range(size >> 20):
                f.write(os.urandom(1 << 20))
        want = sha256_file(path)
        listener = destination.start('nc', '-l', PORT, '--ready')
        listener.wait_ready()
        begin = time.monotonic()
        with open(path, 'rb') as f:
            source.cli('nc', f'{destination.pk}:{PORT}', stdin=f)
        listener.finish()
        seconds = time.monotonic() - begin
        ready, got = listener.out_path, self.world.dir / 'received'
        with open(ready, 'rb') as f, open(got, 'wb') as out:
            f.readline()  # the ready line
            while block := f.read(1 << 20):
                out.write(block)
        have = sha256_file(got)
        size_got = got.stat().st_size
        ready.unlink()
        got.unlink()
        table(['bytes', 'seconds', 'MiB/s', 'SHA-256 sent', 'SHA-256 received'],
              [[size_got, f'{seconds:.2f}', f'{size_got / seconds / 2**20:.0f}', want[:16] + '…', have[:16] + '…']])
        if have != want:
            raise Failed(f'{source.name} -> {destination.name}: {size_got} of {size} bytes received, or other ones')
        self.summary['transferred_bytes'] += size_got

    # ---- the story ----

    def begin(self):
        step('A private network: one full node and five visor-side nodes, each a process of its own',
             'The full node is relay and DHT node with an LMDB store. The visors know one line, its PK@HOST:PORT.')
        self.relay = self.start('relay', '--full', '--listen', '127.0.0.1:0')
        self.visors = [self.start(f'visor{i + 1}', '--bootstrap', self.relay.join) for i in range(VISORS)]
        everybody = {node.pk for node in self.nodes}
        wait_until(lambda: {pk for pk, _ in self.items(self.relay, '--salt', 'dmsg')} >= everybody, 20, 'all entries published')
        statuses = each(self.nodes, lambda node: node.status)
        table(['node', 'key', 'pid', 'role', 'sessions', 'DHT peers', 'items'],
              [[node.name, short(node.pk), node.proc.pid, s['role'], s['sessions'], s['routing_peers'], s['stored_items']]
               for node, s in zip(self.nodes, statuses)])

    def find(self):
        step('Everybody finds everybody',
             'Each node signs an entry that says through which relay it is reached, and puts it into the DHT.',
             'Source of an answer: cache (asked before), local (own store), dht (asked of others, so many hops away).')
        self.look_up_all(self.nodes)

    def send(self):
        step(f'{FILE_BYTES >> 20} MiB from {self.visors[0].name} to {self.visors[1].name}',
             'Encrypted from end to end; the relay passes on what it cannot read.')
        self.transfer(self.visors[0], self.visors[1], FILE_BYTES)

    def crash(self):
        seqs = dict(zip((v.pk for v in self.visors),
                        each(self.visors, lambda v: v.cli('dht', 'put', 'note', f'by {v.name}', '--json').json['seq'])))
        before = self.items(self.relay)
        time.sleep(0.5)  # several commit intervals
        step('The relay is killed with -9 and started again',
             'What it had acknowledged must be in its store; the visors must come back by themselves.')
        self.count_lookups(self.relay)
        self.relay.kill()
        begin = time.monotonic()
        self.relay.up()
        after = self.items(self.relay)
        lost = [key for key, seq in before.items() if after.get(key, -1) < seq]
        notes = [pk for pk, seq in seqs.items() if after.get((pk, 'note')) != seq]
        if lost or notes:
            raise Failed(f'lost in the crash: {lost or notes}')

        def back(visor):
            other = self.visors[self.visors.index(visor) - 1]
            wait_until(lambda: visor.status['sessions'] >= 1, RECOVERY_S, f'{visor.name} has a session again')
            wait_until(lambda: self.look_up(visor, other), RECOVERY_S, f'{visor.name} finds {other.name} again')
            wait_until(lambda: self.look_up(self.relay, visor), RECOVERY_S, f'the relay finds {visor.name} again')
            return time.monotonic() - begin

        times = each(self.visors, back)
        recovery = max(times)
        self.summary['recovery_s'] = round(recovery, 2)
        table(['items before', 'items after', 'lost', *(f'{v.name} back' for v in self.visors)],
              [[len(before), len(after), len(lost), *(f'{t:.1f} s' for t in times)]])
        if recovery >= RECOVERY_S:
            raise Failed(f'visors came back after {recovery:.1f} s only')
        step('Look-ups and a new transfer through the restarted relay')
        self.look_up_all([self.relay, *self.visors])
        self.transfer(self.visors[2], self.visors[3], SECOND_FILE_BYTES)

    def replace(self):
        step('A second full node joins and takes everything over',
             'It pulls the data set of the first one; the visors find it in the DHT and keep a session to it too.')
        second = self.start('second', '--full', '--listen', '127.0.0.1:0', '--bootstrap', self.relay.join)
        wait_until(lambda: set(self.items(second)) >= set(self.items(self.relay)), 20, 'second full node has the whole data set')
        table(['items of relay', 'items of second'], [[len(self.items(self.relay)), len(self.items(second))]])
        each(self.visors, lambda v: wait_until(lambda: v.status['sessions'] >= 2, 20, f'{v.name} has a session to second'))
        wait_until(lambda: all(second.pk in self.look_up(second, v)['entry']['client']['delegated_servers'] for v in self.visors),
                   20, 'all entries name the second relay')
        step('The first full node is stopped; everything is still found')
        self.count_lookups(self.relay)
        self.relay.stop()
        self.nodes.remove(self.relay)
        rest = [second, *self.visors]
        self.look_up_all(rest)
        notes = 0
        for asker in rest:
            for visor in self.visors:
                got = asker.cli('dht', 'get', visor.pk, 'note', *(['--network'] if asker is not second else [])).text
                if got.rstrip('\n') != f'by {visor.name}':
                    raise Failed(f'{asker.name} got {got!r} as the note of {visor.name}')
                notes += 1
        self.transfer(self.visors[4], self.visors[0], SECOND_FILE_BYTES)
        say(f'\n  {notes} of {notes} notes of the visors were read by the others and by the second full node.')

    def run(self):
        self.begin()
        self.find()
        self.send()
        self.crash()
        self.replace()
        for node in self.nodes:
            self.count_lookups(node)
        if self.summary['lookups']['http']:
            raise Failed('somebody asked an HTTP service')
        for node in reversed(self.nodes):
            node.stop()
        self.summary['ok'] = True


def terminated(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kadmsg', required=True, help='the program')
    args = parser.parse_args()
    for sig in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, terminated)
    code = 1
    with World(args.kadmsg, prefix='kadmsg-demo-') as world:
        demo = Demo(world)
        try:
            demo.run()
            code = 0
        except Exception as error:  # whatever it is, the demo has failed, and says so in its last line
            say(f'\nFAILED: {error}' if isinstance(error, Failed) else f'\nFAILED: {type(error).__name__}: {error}')
            print(world.describe(), file=sys.stderr)
        except KeyboardInterrupt:
            code = 130
        for sig in (signal.SIGINT, signal.SIGTERM):  # cleaning up is short, and is not to be interrupted
            signal.signal(sig, signal.SIG_IGN)
    step('Done' if code == 0 else 'Ended', f'{demo.summary["nodes"]} nodes; every process is gone, so is the temporary directory.')
    lookups = demo.summary['lookups']
    say(f'  Look-ups: {lookups["cache"]} from caches, {lookups["dht"]} by DHT, {lookups["http"]} by HTTP, {lookups["miss"]} without answer.')
    say()
    say(json.dumps(demo.summary))
    return code


if __name__ == '__main__':
    sys.exit(main())
