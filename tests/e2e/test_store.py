"""The store command, and one store for one process."""
import json

import pytest
from procs import wait_until


def put(node, salt, value):
    return node.cli('dht', 'put', salt, value, '--json').json['seq']


def listed(node):
    """The notes; what a node publishes of itself comes when it comes."""
    return sorted((row['target'], row['seq']) for row in node.cli('dht', 'list', '--json').rows if row['salt'].startswith('note'))


@pytest.fixture
def node(world):
    one = world.node('one', '--full', '--listen', '127.0.0.1:0')
    for i in range(5):
        put(one, f'note {i}', f'value {i} ✓')
    wait_until(lambda: one.status['store']['pending'] == 0, 10, 'all of it is on disk')
    return one


def test_stat_and_verify_of_a_stopped_store(world, node):
    node.stop()
    tool = world.place()
    have = len(tool.cli('store', 'dump', '--store', node.store).out.splitlines())
    assert have >= 5
    assert tool.cli('store', 'stat', '--store', node.store, '--json').json['items'] == have
    report = tool.cli('store', 'verify', '--store', node.store, '--json').json
    assert report['ok'] and report['records'] == have and report['damaged'] == 0


def test_dump_of_a_running_node_and_load(world, node, tmp_path):
    tool, copy = world.place(), tmp_path / 'copy'
    dumped = tool.cli('store', 'dump', '--store', node.store).out
    lines = [json.loads(line) for line in dumped.splitlines()]
    assert len(lines) >= 5
    loaded = tool.cli('store', 'load', '--store', copy, '--json', input=dumped).json
    assert loaded['refused'] == 0 and loaded['stored'] >= 5
    # The same again changes nothing.
    again = tool.cli('store', 'load', '--store', copy, '--json', input=dumped).json
    assert again['stored'] == 0 and again['refused'] == 0
    other = world.make('other', '--full', '--listen', '127.0.0.1:0')
    other.store = copy
    other.up()
    assert set(listed(other)) >= set(listed(node))
    assert other.cli('dht', 'get', node.pk, 'note 3').text.rstrip('\n') == 'value 3 ✓'


def test_load_refuses_what_was_tampered_with(world, node, tmp_path):
    tool = world.place()
    lines = tool.cli('store', 'dump', '--store', node.store).out.splitlines()
    bad = [line[:-20] + (b'0' if line[-20:-19] != b'0' else b'1') + line[-19:] for line in lines[1:]]
    result = tool.cli('store', 'load', '--store', tmp_path / 'copy', input=b'\n'.join([*bad, b'{}', b'nonsense', b'\xff' * 100]) + b'\n', code=1)
    assert str(tmp_path / 'copy') in result.err


def test_load_never_lowers_a_seq(world, node):
    old = world.place().cli('store', 'dump', '--store', node.store).out
    newer = put(node, 'note 1', 'newer')
    node.stop()
    world.place().cli('store', 'load', '--store', node.store, input=old)
    node.up()
    got = node.cli('dht', 'get', node.pk, 'note 1', '--json').json
    assert (got['value'], got['seq']) == ('newer', newer)


def test_dump_never_overwrites(world, node, tmp_path):
    path = tmp_path / 'dump'
    path.write_text('precious')
    result = world.place().cli('store', 'dump', path, '--store', node.store, code=1)
    assert str(path) in result.err and path.read_text() == 'precious'


def test_a_store_belongs_to_one_process(world, node):
    """A second node that is no full one says whose it is; a load too."""
    other = world.make('other', '--listen', '127.0.0.1:0')
    other.store = node.store
    proc = other.begin().proc
    assert proc.wait() == 1
    assert str(node.store) in proc.log and str(node.proc.pid) in proc.log
    result = world.place().cli('store', 'load', '--store', node.store, input=b'', code=1)
    assert str(node.store) in result.err
    assert node.status['public_key'] == node.pk


@pytest.mark.parametrize('command', ['stat', 'dump', 'verify'])
def test_no_store_there(world, command, tmp_path):
    result = world.place().cli('store', command, '--store', tmp_path / 'none', code=1)
    assert result.out == b'' and str(tmp_path / 'none') in result.err and not (tmp_path / 'none').exists()
