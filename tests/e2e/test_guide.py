"""Every command of docs/guide/README.md, run as it stands there; what it prints is compared with what the page says."""
import random
import re
import shlex
import socket
from pathlib import Path

import pytest
from local import Local
from procs import Failed, Process, wait_until
from sshd import Sshd

PAGE = (Path(__file__).resolve().parents[2] / 'docs/guide/README.md').read_text()
WAIT_S = 40
# Local ports that the page names: each becomes a free one, in commands and in what they print.
PORTS = ['8081', '4445', '8080', '8000', '9000', '2222', '1080', '4446']
# These change nothing, and look at what others write: they may be too early.
LOOKING = ['cat', 'wc']
MACHINES = ['relay', 'alice', 'bob', 'carol']


def recipes():
    """[(title, [(machine, command, lines that it prints)])]"""
    found = []
    for section in PAGE.split('\n## ')[1:]:
        steps = []
        for block in re.findall(r'^```console\n(.*?)^```', section, re.M | re.S):
            for line in block.splitlines():
                prompt = re.match(rf'({"|".join(MACHINES)})\$ (.*)', line)
                if prompt:
                    steps.append((prompt[1], prompt[2], []))
                elif line.startswith('> '):  # the command goes on
                    steps[-1] = (steps[-1][0], f'{steps[-1][1]}\n{line[2:]}', [])
                else:
                    steps[-1][2].append(line)
        found.append((section.partition('\n')[0], steps))
    return found


RECIPES = recipes()


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

    def __init__(self, world, local, recipe):
        self.world, self.keys = world, {}
        self.ports = dict(zip(PORTS, map(str, free_ports(len(PORTS)))))
        self.bin = world.dir / 'bin'
        self.bin.mkdir()
        (self.bin / 'kadmsg').symlink_to(world.program)
        if 'ssh' in recipe:
            self.sshd = Sshd(local)
            self.ports['22'] = str(self.sshd.port)
            (self.bin / 'ssh').write_text(f'#!/bin/sh\nexec /usr/bin/ssh {shlex.join(self.sshd.options())} "$@"\n')
            (self.bin / 'ssh').chmod(0o755)
        defaults = world.dir / 'web.conf'
        defaults.write_text(f"PROXYPORT={self.ports['4445']}\nWEBPORT=('{self.ports['8080']}')\n")
        for name in MACHINES:
            place = world.place(name)
            place.env['PATH'] = f'{self.bin}:{place.env["PATH"]}'
            place.env['DMSGWEB'] = str(defaults)
            place.env['GIT_CONFIG_NOSYSTEM'] = '1'

    def text(self, text):
        return re.sub(r'(?<![\w.])(\d+)(?!\w)', lambda m: self.ports.get(m[1], m[1]), text)

    def key(self, name):
        if name not in self.keys:
            place = self.world.place(name)
            self.keys[name] = wait_until(lambda: place.try_cli('status', '--json').json['public_key'], WAIT_S, f'{name} runs')
        return self.keys[name]

    def run(self, machine, command, shown):
        place = self.world.place(machine)
        command, want = self.text(command), pattern([self.text(line) for line in shown])
        for name in MACHINES:
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
        return result.code == 0 and want.fullmatch(result.text.replace('\r', ''))

    def settled(self):
        """Everybody finds everybody: no command of a recipe has to wait for that."""
        for asker in ['alice', 'bob']:
            for other in ['relay', 'alice', 'bob']:
                wait_until(lambda a=asker, o=other: self.world.place(a).try_cli('entry', 'get', self.key(o)).code == 0, WAIT_S,
                           f'{asker} finds {other}')


@pytest.fixture
def local(world):
    servers = Local(world.dir)
    yield servers
    servers.close()


def network(steps):
    """The commands of the first recipe that start the nodes."""
    return [step for step in steps if ' node ' in step[1]]


@pytest.mark.parametrize('title,steps', RECIPES, ids=[title.split('.')[0] for title, _ in RECIPES])
def test_recipe(world, local, title, steps):
    machines = Machines(world, local, title)
    first = network(RECIPES[0][1])
    for step in first:
        machines.run(*step)
    machines.settled()
    for step in steps:
        if step not in first:
            machines.run(*step)


def test_the_page_is_whole():
    assert len(RECIPES) == 10 and all(len(steps) >= 3 for _, steps in RECIPES)
    assert [title for title, _ in RECIPES] == [f'{int(n)}. {t}' for n, t in re.findall(r'^(\d+)\. \[(.*)\]\(#', PAGE, re.M)]
