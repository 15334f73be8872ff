"""A mesh of three relays and thirty clients while processes die, stand still and move, and the network between them is
bad; afterwards every client reaches every other one, and nothing is left of what was lost. One relay keeps its address
through it all: if all of them moved faster than they can tell each other, nobody could know where anybody is.

KADMSG_SEED repeats a run; KADMSG_CHAOS_S=600 makes it a long one, which is strict about ten seconds;
KADMSG_CHAOS_CLIENTS=60 makes it a bigger one.
"""
import concurrent.futures
import os
import random
import signal
import time

import pytest
from bad_proxy import GOOD, BadProxy, Fault
from ctl_socket import CtlSocket, Refused
from procs import Failed, wait_until

SECONDS = float(os.environ.get('KADMSG_CHAOS_S', '12'))
CLIENTS = int(os.environ.get('KADMSG_CHAOS_CLIENTS', '30'))
SEED = int(os.environ.get('KADMSG_SEED') or random.SystemRandom().getrandbits(32))
REACH_S = 10 if 'KADMSG_CHAOS_S' in os.environ else 90  # on a slow and busy machine; what it took is printed
PING, PONG = b'\x09', b'\x0a'


def descriptors(node):
    return len(os.listdir(f'/proc/{node.proc.pid}/fd'))


def control(node):
    return node.proc.ready['control']


def exchange(stream):
    """One question and its answer on a stream to port 7."""
    stream.sendall(PING)
    return stream.recv(1) == PONG


class Net:
    def __init__(self, world, rng):
        self.world, self.rng = world, rng
        self.relays, self.proxies, self.stopped = [], [], {}
        for i in range(3):
            self.add_relay(f'relay{i}')
        joins = [self.join(i) for i in range(3)]
        self.clients = []
        for i in range(CLIENTS):
            flags = [x for join in (joins[0], rng.choice(joins[1:])) for x in ('--bootstrap', join)]
            self.clients.append(world.make(f'client{i}', *flags, '--pk-threads', '1').begin())
        for client in self.clients:
            client.proc.wait_ready(60)
        self.counts = dict.fromkeys(('kill relay', 'move relay', 'stop relay', 'kill client', 'stop client', 'fault',
                                     'cut'), 0)

    # ---- relays behind proxies ----

    def add_relay(self, name):
        proxy = BadProxy(self.rng, ('127.0.0.1', 1))
        others = [x for i in range(len(self.relays)) for x in ('--bootstrap', self.join(i), '--peers', self.join(i))]
        relay = self.world.make(name, '--full', '--listen', '127.0.0.1:0', '--pk-threads', '1', '--workers', '2', *others,
                                '--public-address', f'127.0.0.1:{proxy.port}').up()
        proxy.target = self.address(relay)
        self.relays.append(relay)
        self.proxies.append(proxy)

    @staticmethod
    def address(relay):
        host, _, port = relay.relay.rpartition(':')
        return host, int(port)

    def join(self, i):
        return f'{self.relays[i].pk}@127.0.0.1:{self.proxies[i].port}'

    def restart_relay(self, i, moves):
        """Killed and started again; moves: under another address than before, for the world as well."""
        relay = self.relays[i]
        relay.kill()
        self.stopped.pop(relay, None)
        relay.relay = None
        if moves:
            self.proxies[i].close()
            self.proxies[i] = BadProxy(self.rng, ('127.0.0.1', 1))
            relay.flags[relay.flags.index('--public-address') + 1] = f'127.0.0.1:{self.proxies[i].port}'
        relay.flags[relay.flags.index('--listen') + 1] = '127.0.0.1:0'
        relay.up(timeout=60)
        self.proxies[i].target = self.address(relay)

    # ---- what happens ----

    def stop_for_a_while(self, node):
        if node not in self.stopped:
            node.proc.signal(signal.SIGSTOP)
            self.stopped[node] = time.monotonic() + self.rng.uniform(0.5, 4)

    def wake(self, everybody=False):
        for node, until in list(self.stopped.items()):
            if everybody or time.monotonic() >= until:
                node.proc.signal(signal.SIGCONT)
                del self.stopped[node]

    def misfortune(self):
        rng = self.rng
        what = rng.choices(list(self.counts), [2, 1, 2, 4, 4, 6, 3])[0]
        self.counts[what] += 1
        i = rng.randrange(3)
        if what in ('kill relay', 'move relay'):
            self.restart_relay(i, i > 0 and what == 'move relay')
        elif what == 'stop relay':
            self.stop_for_a_while(self.relays[i])
        elif what == 'kill client':
            client = rng.choice(self.clients)
            client.kill()
            self.stopped.pop(client, None)
            client.up(timeout=60)
        elif what == 'stop client':
            self.stop_for_a_while(rng.choice(self.clients))
        elif what == 'cut':
            self.proxies[i].cut()
        else:
            self.proxies[i].fault = rng.choice([
                GOOD, Fault(delay_s=rng.uniform(0.001, 0.1)), Fault(rate=rng.randrange(20_000, 500_000), split=2048),
                Fault(stalled=True), Fault(split=rng.choice([1, 7, 100]))])

    def calm(self):
        self.wake(everybody=True)
        for proxy in self.proxies:
            proxy.fault = GOOD

    def close(self):
        for proxy in self.proxies:
            proxy.close()

    # ---- who reaches whom ----

    def unreached(self, source, pks, timeout_ms=5000):
        """Those of pks that this client does not reach, by a stream that carries a byte there and one back."""
        missing = []
        with CtlSocket(control(source)) as ctl:
            for pk in pks:
                try:
                    with ctl.dial(pk, 7, timeout_ms) as stream:
                        ok = exchange(stream)
                except (Refused, OSError):
                    ok = False
                if not ok:
                    missing.append(pk)
        return missing

    def wait_all_pairs(self, timeout):
        """Every client reaches every other one, at the latest in a round that began when the time was over; returns
        how long that took."""
        begin = time.monotonic()
        todo = {c: [o.pk for o in self.clients if o is not c] for c in self.clients}
        with concurrent.futures.ThreadPoolExecutor(len(self.clients)) as pool:
            while todo:
                late = time.monotonic() - begin > timeout
                found = list(pool.map(lambda c: (c, self.unreached(c, todo[c])), list(todo)))
                todo = {c: missing for c, missing in found if missing}
                if todo and late:
                    first = next(iter(todo))
                    raise Failed(f'{sum(map(len, todo.values()))} pairs are apart after {timeout} s: {first.name} does '
                                 f'not reach {todo[first]}; ' + first.try_cli('dht', 'why', todo[first][0], '--json').out.decode())
        return time.monotonic() - begin


class Gauges:
    """What must come back to what it was."""

    def __init__(self, net):
        self.of_relay = [self.look(r) for r in net.relays]

    @staticmethod
    def look(relay):
        status = relay.status
        limits, r = status['relay']['limits'], status['relay']
        # A descriptor for each link, those that the relay dialled among them, and those of the program itself.
        own = descriptors(relay) - limits['links'] - r['mesh']['links'] - status['control']['connections']
        return {'descriptors': own, 'buffered': r['buffered'], 'setups': limits['setups'],
                'handshakes': limits['handshakes'], 'waits': limits['throttle_waits']}

    @staticmethod
    def settled(relay, before):
        now = Gauges.look(relay)
        return now if now['descriptors'] > before['descriptors'] + 8 or any(
            now[k] for k in ('buffered', 'setups', 'handshakes', 'waits')) else None


def keep_talking(net, rng, until):
    """Streams that live on through it all, as far as they can: every stream carries bytes, or ends. Returns how many
    answers came."""
    answers, held = 0, []
    while time.monotonic() < until[0]:
        source, target = rng.sample(net.clients, 2)
        try:
            with CtlSocket(control(source), timeout=10) as ctl:
                held.append(ctl.dial(target.pk, 7, 2000))
        except (Refused, OSError, KeyError, TypeError):
            pass
        for stream in list(held):
            stream.settimeout(0.2)
            try:
                answers += exchange(stream)
            except OSError:
                held.remove(stream)
                stream.close()
        if len(held) > 30:
            held.pop(0).close()
        time.sleep(0.02)
    for stream in held:
        stream.close()
    return answers


@pytest.mark.limit(int(SECONDS) + 360)
def test_chaos(world):
    print(f'KADMSG_SEED={SEED}')
    rng = random.Random(SEED)
    net = Net(world, rng)
    try:
        print(f'ready, all pairs after {net.wait_all_pairs(90):.1f} s')
        before = Gauges(net)
        end = [time.monotonic() + SECONDS]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            talk = pool.submit(keep_talking, net, random.Random(SEED + 1), end)
            while time.monotonic() < end[0]:
                net.misfortune()
                until = time.monotonic() + rng.uniform(0.05, 0.6)
                while time.monotonic() < until:
                    net.wake()
                    time.sleep(0.05)
            net.calm()
            answers = talk.result(120)
        took = net.wait_all_pairs(REACH_S)
        print(f'{net.counts}, {answers} answers meanwhile, all pairs again after {took:.1f} s')
        assert answers > 0
        for node in (*net.relays, *net.clients):
            assert node.proc.running, node.proc.describe()
        for relay, was in zip(net.relays, before.of_relay):
            wait_until(lambda r=relay, w=was: Gauges.settled(r, w) is None, 60,
                       f'{relay.name} back to {was}: {Gauges.look(relay)}')
        for client in net.clients:
            wait_until(lambda c=client: c.status['ports'] <= c.status['streams'] + 8, 60, f'{client.name}: ports are free')
    finally:
        net.close()
