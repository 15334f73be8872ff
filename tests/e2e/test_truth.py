"""The simulator against real processes: the same network of kadmsg nodes behind one relay on this machine, and as
simulator/scenarios/hundred.yaml has it. Look-ups must succeed alike, ask as many nodes, and take as many hops.

KADMSG_TRUTH_NODES=100 does by hand what docs/simulator.md shows."""
import json
import os
import random
from pathlib import Path

import pytest
from procs import wait_until

ROOT = Path(__file__).resolve().parents[2]
NODES = int(os.environ.get('KADMSG_TRUTH_NODES', '30'))
LOOKUPS = int(os.environ.get('KADMSG_TRUTH_LOOKUPS', '25'))
VALUES = 5
HOPS, ASKED = 0.35, 0.10  # tolerances: hops, and share of the nodes asked


def real(world, relay):
    """Means over look-ups of real nodes: found, hops, asked."""
    nodes = [world.make(f'n{i}', '--bootstrap', relay.join).begin() for i in range(1, NODES)]
    for node in nodes:
        node.proc.wait_ready()
    for node in nodes:
        wait_until(lambda n=node: n.status['routing_peers'] >= min(20, NODES - 1), 60, f'{node.name} knows others')
    rng = random.Random(1)
    owners = rng.sample(nodes, VALUES)
    for owner in owners:
        owner.cli('dht', 'put', 'truth', owner.name)
    reports = []
    for _ in range(LOOKUPS):
        asker, owner = rng.sample(nodes, 1)[0], rng.choice(owners)
        reports.append(asker.cli('dht', 'lookup', owner.pk, 'truth', '--json').json)
    count = len(reports)
    return (sum(r['found'] for r in reports) / count, sum(r['hops'] for r in reports) / count,
            sum(r['asked'] for r in reports) / count)


def simulated(place):
    summary = place.cli('sim', 'run', ROOT / 'simulator/scenarios/hundred.yaml', '--set', f'nodes={NODES}', '--set',
                        f'puts.share={100 * VALUES / NODES:.2f}%', '--json', '--quiet', timeout=60).json
    lookups = summary['lookups']
    return lookups['ok'] / (lookups['ok'] + lookups['failed']), lookups['hops_mean'], lookups['asked_mean']


@pytest.mark.limit(180 if NODES <= 30 else 900)
def test_simulator_and_real_nodes_agree(world, relay):
    found, hops, asked = real(world, relay)
    sim_found, sim_hops, sim_asked = simulated(world.place('simulator'))
    print(json.dumps({'nodes': NODES, 'lookups': LOOKUPS, 'real': {'found': found, 'hops': round(hops, 3), 'asked': round(asked, 2)},
                      'simulated': {'found': sim_found, 'hops': sim_hops, 'asked': sim_asked}}))
    assert found == sim_found == 1
    assert abs(hops - sim_hops) <= HOPS
    assert abs(asked - sim_asked) <= ASKED * sim_asked
