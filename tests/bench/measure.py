"""What the benches share: the servers they measure, the load generator, and their output.

A server is a fresh process on a free port of 127.0.0.1, stopped again when its block is left:

    with node() as server:
        result = load(server, 'sess', count=2000)
    emit('session', {...}, value, 'ms', [result], ceiling)
"""
import contextlib
import json
import os
import select
import statistics
import subprocess
import tempfile

KADMSG = os.environ['KADMSG']
# One core for the server and one for who drives it; a machine of one core has no choice.
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORES, DRIVER_CORES = {CORES[0]}, {CORES[-1]}
BOUND = 0.9  # of a core: the driver could not do more
KADMSG_LOAD = os.environ['KADMSG_LOAD']
RUNS = int(os.environ.get('KADMSG_BENCH_RUNS', '5'))
LISTEN = ('--listen', '127.0.0.1:0')
READY_S = 20
LOAD_S = 300


class Server:
    def __init__(self, proc, ready):
        self.pid = proc.pid
        self.addr = ready['relay']
        self.pk = ready.get('public_key')


def read_ready(proc, log):
    line = b''
    if select.select([proc.stdout], [], [], READY_S)[0]:
        line = proc.stdout.readline()
    if not line:
        log.seek(0)
        raise SystemExit(f'{" ".join(proc.args)}: not ready: {log.read().decode()}')
    return json.loads(line)


@contextlib.contextmanager
def serve(argv, cores=None):
    with tempfile.TemporaryFile() as log, subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log) as proc:
        if cores is not None:  # inherited by threads that it starts later
            os.sched_setaffinity(proc.pid, cores)
        try:
            yield Server(proc, read_ready(proc, log))
        finally:
            proc.terminate()
            try:
                proc.wait(READY_S)
            except subprocess.TimeoutExpired:
                proc.kill()


@contextlib.contextmanager
def node(*flags, cores=None):
    """The real program, its state in a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix='kadmsg-bench-') as tmp:
        argv = [KADMSG, 'node', '--ready', '--store', f'{tmp}/store', '--control', f'{tmp}/control',
                '--log-level', 'error', *flags]
        with serve(argv, cores) as server:
            yield server


@contextlib.contextmanager
def copier(cores=None):
    """The bare byte-copying relay."""
    with serve([KADMSG_LOAD, 'copy', '--addr', '127.0.0.1:0'], cores) as server:
        yield server


def load(server, mode, cores=None, **params):
    """One run of the load generator; bare=True against copier()."""
    argv = [KADMSG_LOAD, mode]
    if server is not None:
        argv += ['--addr', server.addr, '--pid', str(server.pid)]
        argv += ['--pk', server.pk] if server.pk else []
    for name, value in params.items():
        if value is True:
            argv.append(f'--{name}')
        elif value is not False:
            argv += [f'--{name}', str(value)]
    pin = None if cores is None else lambda: os.sched_setaffinity(0, cores)
    proc = subprocess.run(argv, stdout=subprocess.PIPE, timeout=LOAD_S, preexec_fn=pin)
    if proc.returncode != 0:
        raise SystemExit(f'{" ".join(argv)}: exit code {proc.returncode} {proc.stdout.decode()}')
    result = json.loads(proc.stdout)
    if server is not None:
        result['peak_rss_kib'] = status_kib(server.pid, 'VmHWM')
    return result


def status_kib(pid, member):
    with open(f'/proc/{pid}/status', encoding='ascii') as status:
        return next(int(line.split()[1]) for line in status if line.startswith(f'{member}:'))


def median(results, member):
    return statistics.median(r[member] for r in results)


def driver_bound(results):
    """The driver used its core up in most of these runs: then it, not the server, bounds what was
    done in their time. Processor time of the server is right all the same."""
    busy = [r['driver_cpu_s'] / r['wall_s'] > BOUND for r in results if r.get('wall_s')]
    return sum(busy) * 2 > len(busy)


def emit(name, params, value, unit, results, ceiling=None, **more):
    """Print one measurement. results: the runs of the load generator behind it; cpu_s is the
    server's in all of them. Members beyond those that every bench has go into `more`."""
    line = {'name': name, 'params': params, 'value': round(value, 4), 'unit': unit,
            'cpu_s': round(sum(r.get('server_cpu_s') or 0 for r in results), 3),
            'peak_rss_kib': max(r['peak_rss_kib'] for r in results),
            'ceiling': None if ceiling is None else round(ceiling, 4),
            'ratio': round(value / ceiling, 3) if ceiling else None,
            'runs': len(results), **more}
    print(json.dumps(line), flush=True)
