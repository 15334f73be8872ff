"""Every command of docs/deployment.md, run as it stands there; what it prints is compared with what the page says."""
import pytest
from recipes import Machines, Page

PAGE = Page('deployment.md', ['disc', 'relay', 'alice', 'bob', 'tpd', 'redis'], ['8081', '9090', '9091', '6379'])
FORMS = [recipe for recipe in PAGE.recipes if recipe[1]]


@pytest.mark.parametrize('title,steps', FORMS, ids=[title.split('.')[0] for title, _ in FORMS])
def test_form(world, title, steps):
    machines = Machines(world, PAGE)
    for step in steps:
        machines.run(*step)


def test_the_page_is_whole():
    assert [title.split('.')[0] for title, _ in FORMS] == ['1', '2', '3'] and all(len(steps) >= 5 for _, steps in FORMS)
