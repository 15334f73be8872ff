#!/usr/bin/env python3
"""What Kademlia's own rules give for look-ups in a network without failures, computed without any of our code: to
be held against `kadmsg sim` (docs/simulator.md, "Against theory").

    tests/tools/kad_theory.py [--nodes 1000 10000 100000] [--lookups 1000]

Monte Carlo: random IDs; every bucket holds min(k, all) nodes of its range, drawn evenly; an answer is the k closest
contacts; alpha requests are under way until the k closest nodes heard of have answered; latencies are log-normal.
Formula: a bucket of k nodes brings one bit, and the best of k random ones log2(k) + 0.33 more (the mean of the
largest of k exponential variables, in bits), so the first of the k closest of n nodes is
log2(n / k) / (1.33 + log2 k) steps away; since steps are whole, a part of one comes on top."""
import argparse
import bisect
import heapq
import math
import random

BITS = 64


class Network:
    def __init__(self, nodes, k, rng):
        self.k, self.rng = k, rng
        self.ids = sorted(rng.getrandbits(BITS) for _ in range(nodes))
        self.buckets = {}

    def bucket(self, node, cpl):
        """Contacts of a node that share exactly so many bits with it."""
        key = node, cpl
        if key not in self.buckets:
            flipped = node ^ 1 << BITS - 1 - cpl
            low = flipped >> BITS - 1 - cpl << BITS - 1 - cpl
            a = bisect.bisect_left(self.ids, low)
            b = bisect.bisect_left(self.ids, low + (1 << BITS - 1 - cpl))
            places = range(a, b) if b - a <= self.k else self.rng.sample(range(a, b), self.k)
            self.buckets[key] = [self.ids[i] for i in places]
        return self.buckets[key]

    def closest(self, node, target):
        """The k contacts of a node that are closest to a target."""
        cpl = min(BITS - (node ^ target).bit_length(), BITS - 1)
        found = list(self.bucket(node, cpl))
        if len(found) < self.k:
            deeper = cpl + 1
            while deeper < BITS and (deeper < cpl + 64) and self.range_size(node, deeper) > 1:
                found += self.bucket(node, deeper)
                deeper += 1
        while len(found) < self.k and cpl > 0:
            cpl -= 1
            found += self.bucket(node, cpl)
        return sorted(set(found), key=lambda x: x ^ target)[:self.k]

    def range_size(self, node, bits):
        low = node >> BITS - bits << BITS - bits
        return bisect.bisect_left(self.ids, low + (1 << BITS - bits)) - bisect.bisect_left(self.ids, low)

    def holders(self, target):
        """The k closest nodes of all."""
        at = bisect.bisect_left(self.ids, target)
        near = self.ids[max(0, at - 40 * self.k):at + 40 * self.k]
        return set(sorted(near, key=lambda x: x ^ target)[:self.k])


def look_up(net, alpha, sigma):
    """Hop of the first node that has what is looked for, and how many were asked."""
    rng, start, target = net.rng, net.rng.choice(net.ids), net.rng.getrandbits(BITS)
    holders = net.holders(target) - {start}
    known = {contact: 1 for contact in net.closest(start, target)}
    known.pop(start, None)
    asked, answered, flying, now, first = set(), set(), [], 0.0, None
    while True:
        best = sorted(known, key=lambda x: x ^ target)[:net.k]
        for contact in best:
            if contact not in asked and len(flying) < alpha:
                asked.add(contact)
                heapq.heappush(flying, (now + 2 * math.exp(rng.gauss(0, sigma)), contact))
        if not flying or all(contact in answered for contact in best):
            return first, len(asked)
        now, contact = heapq.heappop(flying)
        answered.add(contact)
        if contact in holders and first is None:
            first = known[contact]
        for other in net.closest(contact, target):
            if other != start:
                known.setdefault(other, known[contact] + 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--nodes', type=int, nargs='+', default=[1000, 10000, 100000])
    parser.add_argument('--lookups', type=int, default=1000)
    parser.add_argument('--k', type=int, default=20)
    parser.add_argument('--alpha', type=int, default=3)
    parser.add_argument('--sigma', type=float, default=0.5)
    parser.add_argument('--seed', type=int, default=1)
    args = parser.parse_args()
    print('nodes    formula  hops   asked  found')
    for nodes in args.nodes:
        net = Network(nodes, args.k, random.Random(args.seed))
        results = [look_up(net, args.alpha, args.sigma) for _ in range(args.lookups)]
        hops = [hop for hop, _ in results if hop is not None]
        formula = math.log2(nodes / args.k) / (1.33 + math.log2(args.k))
        print(f'{nodes:<8} {formula:<8.2f} {sum(hops) / len(hops):<6.2f} {sum(a for _, a in results) / len(results):<6.1f} '
              f'{len(hops)} of {len(results)}')


if __name__ == '__main__':
    main()
