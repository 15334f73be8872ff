"""Every command of docs/guide/README.md, run as it stands there; what it prints is compared with what the page says."""
import re
import shlex

import pytest
from local import Local
from procs import wait_until
from recipes import WAIT_S, Machines, Page
from sshd import Sshd

PAGE = Page('guide/README.md', ['relay', 'alice', 'bob', 'carol'],
            ['8081', '4445', '8080', '8000', '9000', '2222', '1080', '4446'])


class Guide(Machines):
    def __init__(self, world, local, recipe):
        super().__init__(world, PAGE)
        if 'ssh' in recipe:
            sshd = Sshd(local)
            self.ports['22'] = str(sshd.port)
            (self.bin / 'ssh').write_text(f'#!/bin/sh\nexec /usr/bin/ssh {shlex.join(sshd.options())} "$@"\n')
            (self.bin / 'ssh').chmod(0o755)
        defaults = world.dir / 'web.conf'
        defaults.write_text(f"PROXYPORT={self.ports['4445']}\nWEBPORT=('{self.ports['8080']}')\n")
        for name in PAGE.machines:
            world.place(name).env.update(DMSGWEB=str(defaults), GIT_CONFIG_NOSYSTEM='1')

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


@pytest.mark.parametrize('title,steps', PAGE.recipes, ids=[title.split('.')[0] for title, _ in PAGE.recipes])
def test_recipe(world, local, title, steps):
    machines = Guide(world, local, title)
    first = network(PAGE.recipes[0][1])
    for step in first:
        machines.run(*step)
    machines.settled()
    for step in steps:
        if step not in first:
            machines.run(*step)


def test_the_page_is_whole():
    assert len(PAGE.recipes) == 10 and all(len(steps) >= 3 for _, steps in PAGE.recipes)
    titles = re.findall(r'^(\d+)\. \[(.*)\]\(#', PAGE.text, re.M)
    assert [title for title, _ in PAGE.recipes] == [f'{int(n)}. {t}' for n, t in titles]
