"""Nodes and commands of kadmsg as real processes, for the demo and the end-to-end tests.

    with World('build/kadmsg') as world:
        relay = world.node('relay', '--full', '--listen', '127.0.0.1:0')
        visor = world.node('visor', '--bootstrap', relay.join)
        print(visor.cli('entry', 'get', relay.pk, '--json').json)

Every node has a directory of its own with its own state and run directories, so that several nodes
of one host do not see each other. World.close() kills what is left, each by its own pid, and removes
the directory; a process also dies with the one that started it.
"""
import ctypes
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

READY_S = 20
STOP_S = 15
COMMAND_S = 60
POLL_S = 0.03
LOG_TAIL = 6000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Failed(AssertionError):
    """Something did not hold; the text says what, with the output of whoever knows."""


def wait_until(check, timeout, what):
    """Poll check() until it gives something true, and return that. What it raises counts as "not yet"."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            last = check()
            if last:
                return last
        except Failed as error:
            last = error
        if time.monotonic() >= deadline:
            raise Failed(f'not within {timeout} s: {what}; last: {last}')
        time.sleep(POLL_S)


def sha256_file(path):
    import hashlib
    digest = hashlib.sha256()
    with open(path, 'rb') as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Result:
    """What a command printed and how it ended."""

    def __init__(self, argv, code, out, err):
        self.argv, self.code, self.out, self.err = argv, code, out, err

    def __str__(self):
        return (f'$ {" ".join(map(str, self.argv))}\nexit code {self.code}\n'
                f'stdout: {self.out[-LOG_TAIL:].decode("utf-8", "replace")}\nstderr: {self.err[-LOG_TAIL:]}')

    @property
    def text(self):
        return self.out.decode('utf-8')

    @property
    def rows(self):
        """Every line of stdout must be one JSON object."""
        try:
            rows = [json.loads(line) for line in self.out.splitlines()]
        except ValueError as error:
            raise Failed(f'not JSON ({error}): {self}') from None
        if not all(isinstance(row, dict) for row in rows):
            raise Failed(f'not objects: {self}')
        return rows

    @property
    def json(self):
        rows = self.rows
        if len(rows) != 1:
            raise Failed(f'{len(rows)} JSON lines instead of one: {self}')
        return rows[0]


class Process:
    """A started program: stdout and stderr go to files, stdin is a pipe only when asked for."""

    def __init__(self, argv, env, folder, name, stdin=subprocess.DEVNULL, limits=(), cwd=None):
        self.argv, self.name = [str(a) for a in argv], name
        self.out_path, self.log_path = folder / f'{name}.out', folder / f'{name}.log'
        parent = os.getpid()

        def prepare():
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(127)
            for apply in limits:
                apply()

        with open(self.out_path, 'wb') as out, open(self.log_path, 'ab') as log:
            self.popen = subprocess.Popen(self.argv, env=env, cwd=cwd, stdin=stdin, stdout=out, stderr=log,
                                          preexec_fn=prepare)
        self.pid = self.popen.pid
        self.ready = None

    @property
    def log(self):
        return self.log_path.read_text(errors='replace')

    @property
    def running(self):
        return self.popen.poll() is None

    def describe(self):
        code = self.popen.poll()
        state = 'running' if code is None else f'exit code {code}'
        return f'{self.name} ({state}): {" ".join(self.argv)}\n{self.log[-LOG_TAIL:]}'

    def wait_ready(self, timeout=READY_S):
        """The ready line: the first one on stdout."""
        def first_line():
            line, end, _ = self.out_path.read_bytes().partition(b'\n')
            if end:
                return line
            if not self.running:
                # It may have printed the line and ended between the two looks.
                if b'\n' in self.out_path.read_bytes():
                    return None
                raise Exited(f'ended before it was ready: {self.describe()}')
            return None

        try:
            line = wait_until(first_line, timeout, f'{self.name} ready')
            self.ready = json.loads(line)
        except Exited as error:
            raise Failed(str(error)) from None
        except ValueError:
            raise Failed(f'ready line is not JSON: {line!r}') from None
        if self.ready.get('event') != 'ready':
            raise Failed(f'first line is not the ready line: {line!r}')
        return self.ready

    def wait(self, timeout=STOP_S):
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f'still running after {timeout} s: {self.describe()}') from None

    def signal(self, sig):
        if self.running:
            os.kill(self.pid, sig)

    def kill(self):
        """kill -9, and be sure that it is gone."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def stop(self, timeout=STOP_S):
        """The orderly end; exit code 0 expected."""
        self.signal(signal.SIGTERM)
        code = self.wait(timeout)
        if code != 0:
            raise Failed(f'exit code {code} after SIGTERM: {self.describe()}')

    def result(self, timeout=COMMAND_S):
        """Wait for the end of a command that was started in the background."""
        code = self.wait(timeout)
        return Result(self.argv, code, self.out_path.read_bytes(), self.log)

    def finish(self, timeout=COMMAND_S):
        result = self.result(timeout)
        if result.code != 0:
            raise Failed(str(result))
        return result


class Exited(Exception):
    pass


class Place:
    """A home of its own for commands: own state and run directories, and thus own default control socket."""

    def __init__(self, world, name, env=()):
        self.world, self.name = world, name
        self.dir = world.dir / name
        self.dir.mkdir(mode=0o700)
        keep = {k: v for k, v in os.environ.items() if k in ('PATH', 'LANG', 'LC_ALL') or k.endswith('SAN_OPTIONS')}
        self.env = {**keep, 'HOME': str(self.dir), 'XDG_STATE_HOME': str(self.dir / 'state'),
                    'XDG_RUNTIME_DIR': str(self.dir / 'run'), **dict(env)}
        self.started = 0

    def try_cli(self, *args, input=b'', timeout=COMMAND_S, stdin=None):
        """Run a command to its end, whatever its exit code."""
        argv = [str(self.world.program), *map(str, args)]
        how = {'stdin': stdin} if stdin is not None else {'input': input}
        try:
            done = subprocess.run(argv, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  timeout=timeout, cwd=self.dir, **how)
        except subprocess.TimeoutExpired as error:
            raise Failed(f'no end after {timeout} s: $ {" ".join(argv)}\n{(error.stderr or b"").decode("utf-8", "replace")}') from None
        return Result(argv, done.returncode, done.stdout, done.stderr.decode('utf-8', 'replace'))

    def cli(self, *args, code=0, **kwargs):
        """Run a command that must end with this exit code."""
        result = self.try_cli(*args, **kwargs)
        if result.code != code:
            raise Failed(f'exit code {code} expected: {result}')
        return result

    def start(self, *args, stdin=subprocess.DEVNULL, limits=()):
        """Start a command in the background."""
        self.started += 1
        return self.world.track(Process([self.world.program, *args], self.env, self.dir,
                                        f'{args[0]}-{self.started}', stdin, limits))


class Node(Place):
    """A node with its key, its directories and its flags; may be started and killed again and again."""

    def __init__(self, world, name, flags, env=()):
        super().__init__(world, name, env)
        self.flags, self.limits = list(flags), []
        self.store = self.dir / 'store'
        self.sk_file = self.dir / 'key'
        self.pk = self.cli('keys', 'gen', '-o', self.sk_file, '--json').json['public_key']
        self.relay = None
        self.proc = None

    def begin(self, *extra):
        """Start without waiting for the ready line."""
        flags = list(self.flags)
        if self.relay:  # a restarted relay keeps its port: others know it
            flags[flags.index('--listen') + 1] = self.relay
        self.proc = self.start('node', '--sk-file', self.sk_file, '--store', self.store, '--ready',
                               *flags, *extra, limits=self.limits)
        return self

    def up(self, *extra, timeout=READY_S):
        ready = self.begin(*extra).proc.wait_ready(timeout)
        if ready['public_key'] != self.pk:
            raise Failed(f'another key than that of the file: {ready}')
        if '--listen' in self.flags:
            self.relay = ready['relay']
        return self

    @property
    def join(self):
        """PK@HOST:PORT, what others need to join."""
        return f'{self.pk}@{self.relay}'

    @property
    def status(self):
        return self.cli('status', '--json').json

    def kill(self):
        return self.proc.kill()

    def stop(self, timeout=STOP_S):
        self.proc.stop(timeout)


class World:
    """Everything that one test or the demo started."""

    def __init__(self, program, prefix='kadmsg-'):
        self.program = Path(program).resolve()
        self.dir = Path(tempfile.mkdtemp(prefix=prefix))
        self.processes, self.places, self.numbers = [], {}, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def track(self, process):
        self.processes.append(process)
        return process

    def place(self, name='tool', env=()):
        """A place without node; the same name gives the same one."""
        if name not in self.places:
            self.places[name] = Place(self, name, env)
        return self.places[name]

    def make(self, name, *flags, env=()):
        """A node with key and directories, not started."""
        node = Node(self, name, map(str, flags), env)
        self.places[name] = node
        return node

    def node(self, name, *flags, env=()):
        return self.make(name, *flags, env=env).up()

    def describe(self):
        return '\n'.join(p.describe() for p in self.processes)

    def close(self):
        for process in self.processes:
            process.signal(signal.SIGKILL)
        for process in self.processes:
            process.popen.wait()
            if process.popen.stdin:
                process.popen.stdin.close()
        shutil.rmtree(self.dir, ignore_errors=True)
