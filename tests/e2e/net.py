"""What the end-to-end tests know about networks: who must find whom, and transfers."""
import hashlib

from procs import Failed, sha256_file, wait_until

SETTLE_S = 30


def find_entry(asker, pk):
    """The answer of `entry get`, checked as far as any entry can be."""
    answer = asker.cli('entry', 'get', pk, '--json').json
    if answer['entry']['static'] != pk or not answer['entry'].get('signature'):
        raise Failed(f'not the entry of {pk}: {answer}')
    return answer


def delegated(answer):
    return answer['entry'].get('client', {}).get('delegated_servers') or []


def settled(nodes, timeout=SETTLE_S, via=None):
    """Wait until every node finds the entry of every other one (and, with via, reachable through that relay)."""
    def found(asker, node):
        answer = find_entry(asker, node.pk)
        return via is None or node is via or via.pk in delegated(answer)

    for asker in nodes:
        for node in nodes:
            if node is not asker:
                wait_until(lambda a=asker, n=node: found(a, n), timeout, f'{asker.name} finds {node.name}')


def received(listener):
    """What `nc -l --ready` wrote behind its ready line."""
    return listener.out_path.read_bytes().partition(b'\n')[2]


def committed(node):
    """Everything that was put is on disk, however slow that is."""
    wait_until(lambda: node.status['store']['pending'] == 0, 20, f'{node.name} has committed')


def transfer(source, destination, path, port, timeout=60):
    """Send a file by nc from one node to another and compare the SHA-256; returns the bytes received."""
    listener = destination.start('nc', '-l', port, '--ready')
    listener.wait_ready()
    with open(path, 'rb') as data:
        source.cli('nc', f'{destination.pk}:{port}', stdin=data, timeout=timeout)
    listener.finish(timeout)
    data = received(listener)
    if hashlib.sha256(data).hexdigest() != sha256_file(path):
        raise Failed(f'{len(data)} bytes received, not those of {path}: {listener.describe()}')
    return len(data)
