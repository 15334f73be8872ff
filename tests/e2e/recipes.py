"""Pages whose commands are run as they stand there; what they print is compared with what the page says."""
import random
import re
import socket
from pathlib import Path

from procs import Failed, Process, wait_until

DOCS = Path(__file__).resolve().parents[2] / 'docs'
WAIT_S = 40
# These change nothing, and look at what others write: they may be too early.
LOOKING = ['cat', 'wc', 'curl']


class Page:
    """A page of docs/: names of its machines (the prompts), and ports of this machine that it names: each becomes a free one."""

    def __init__(self, name, machines, ports):
        self.text, self.machines, self.ports = (DOCS / name).read_text(), machines, ports
        self.recipes = [(section.partition('\n')[0], self.steps(section)) for section in self.text.split('\n## ')[1:]]

    def steps(self, section):
        """[(machine, command, lines that it prints)]"""
        steps = []
        for block in re.findall(r'^```console\n(.*?)^```', section, re.M | re.S):
            for line in block.splitlines():
                prompt = re.match(rf'({"|".join(self.machines)})\$ (.*)', line)
                if prompt:
                    steps.append((prompt[1], prompt[2], []))
                elif line.startswith('> '):  # the command goes on
                    steps[-1] = (steps[-1][0], f'{steps[-1][1]}\n{line[2:]}', [])
                else:
                    steps[-1][2].append(line)
        return steps


def free_ports(n):
    """Below the range that the kernel gives away, so that nobody takes one in the meantime."""
    ports = []
    while len(ports) < n:
        with socket.socket() as s:
            port = random.randrange(20000, 30000)
            try:
                s.bind(('127.0.0.1', port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def pattern(lines):
    """… is any text; a line of it any number of lines."""
    parts = ['(?:.*\n)*?' if line == '…' else '.*'.join(map(re.escape, line.split('…'))) + '\n' for line in lines]
    return re.compile(''.join(parts))


class Machines:
    """The machines of the page: homes of their own on this one."""

    def __init__(self, world, page):
        self.world, self.page, self.keys = world, page, {}
        self.ports = dict(zip(page.ports, map(str, free_ports(len(page.ports)))))
        self.bin = world.dir / 'bin'
        self.bin.mkdir()
        (self.bin / 'kadmsg').symlink_to(world.program)
        for name in self.page.machines:
            place = world.place(name)
            place.env['PATH'] = f'{self.bin}:{place.env["PATH"]}'

    def text(self, text):
        return re.sub(r'(?<![\w.])(\d+)(?!\w)', lambda m: self.ports.get(m[1], m[1]), text)

    def key(self, name):
        """Of its key file, when it made one itself; else of its node."""
        if name not in self.keys:
            place = self.world.place(name)
            files = list(place.dir.glob('*.key'))
            ask = ['keys', 'show', '--sk-file', files[0]] if files else ['status']
            self.keys[name] = wait_until(lambda: place.try_cli(*ask, '--json').json['public_key'], WAIT_S, f'{name} runs')
        return self.keys[name]

    def run(self, machine, command, shown):
        place = self.world.place(machine)
        command, want = self.text(command), pattern([self.text(line) for line in shown])
        for name in self.page.machines:
            if f'${name.upper()}' in command:
                place.env[name.upper()] = self.key(name)
        stays = command.endswith(' &')
        script = f'exec {command[:-2]}' if stays else command
        looks = command.split()[0] in LOOKING and '>' not in command
        process = self.start(place, script)

        def again():
            nonlocal process
            if self.printed(process, want):
                return True
            process = self.start(place, script)

        try:
            if stays:
                wait_until(lambda: not shown or want.match(process.out_path.read_text()), WAIT_S, 'what it says when it is ready')
            elif looks:
                wait_until(again, WAIT_S, 'what it shows in the end')
            elif not self.printed(process, want):
                raise Failed('differs')
        except Failed as why:
            raise Failed(f'{machine}$ {command}\n{why}, exit code {process.popen.poll()}\n-- printed:\n'
                         f'{process.out_path.read_text()}-- the page:\n' + '\n'.join(map(self.text, shown))) from None

    def start(self, place, script):
        place.started += 1
        return self.world.track(Process(['bash', '-c', f'exec 2>&1\n{script}'], place.env, place.dir, f'step-{place.started}',
                                        cwd=place.dir))

    @staticmethod
    def printed(process, want):
        result = process.result(WAIT_S)
        text = result.text.replace('\r', '')
        return result.code == 0 and want.fullmatch(text if text.endswith('\n') or not text else f'{text}\n')
