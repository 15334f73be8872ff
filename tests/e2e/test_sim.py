"""`kadmsg sim` as a user meets it: runs, files, reports, mistakes."""
import csv
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from procs import wait_until

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / 'simulator/scenarios/tiny.yaml'
SMALL = ['--set', 'nodes=40', '--set', 'duration=8min', '--set', 'net.floor=50ms', '--set', 'net.median=60ms', '--quiet']


@pytest.fixture
def tool(world):
    return world.place()


@pytest.fixture
def runs(tool, tmp_path):
    """Two runs that differ in the seed, and the summaries they printed."""
    folders = [tmp_path / 'a', tmp_path / 'b']
    summaries = [tool.cli('sim', 'run', TINY, *SMALL, '--check', '--json', '--seed', seed, '--out', folder).json
                 for seed, folder in enumerate(folders)]
    return folders, summaries


def test_files(runs):
    for folder, summary in zip(*runs):
        kept = json.loads((folder / 'summary.json').read_text())
        assert kept['digest'] == summary['digest'] and kept['lookups']['ok'] == summary['lookups']['ok'] > 0
        rows = list(csv.DictReader((folder / 'series.csv').open()))
        assert int(rows[-1]['events']) == summary['events'] and int(rows[-1]['live']) == 40
        hops = [row for row in csv.DictReader((folder / 'histograms.csv').open()) if row['name'] == 'get_hops']
        assert sum(int(row['count']) for row in hops) > 0
        assert not list(folder.glob('*.part'))


def test_threads_and_seeds(tool, runs):
    digests = [summary['digest'] for summary in runs[1]]
    assert digests[0] != digests[1]
    again = tool.cli('sim', 'run', TINY, *SMALL, '--check', '--json', '--seed', 1, '--threads', 3).json
    assert again['digest'] == digests[1]


def test_report(tool, runs, tmp_path):
    folder = runs[0][0]
    assert tool.cli('sim', 'report', folder).text.strip() == str(folder / 'report.html')
    text = (folder / 'report.html').read_text()
    assert text.count('<figure>') >= 7 and 'src="http' not in text and text.rstrip().endswith('</html>')
    both = tmp_path / 'both.html'
    table = tool.cli('sim', 'compare', *runs[0], '-o', both).text
    assert '\nevents ' in table and 'digests differ' in table
    assert str(runs[0][0]) in both.read_text() and str(runs[0][1]) in both.read_text()
    answer = tool.cli('sim', 'compare', runs[0][0], runs[0][0], '--json').json
    assert answer['same_digest'] and answer['events']['change'] == 0


def test_interrupted(tool, tmp_path):
    """Ctrl-C: the results so far, and files of them."""
    run = tool.start('sim', 'run', TINY, '--set', 'duration=1000h', '--json', '--out', tmp_path / 'out')
    wait_until(lambda: 'events' in run.log, 30, 'a progress line')
    run.signal(signal.SIGINT)
    result = run.result(30)
    assert result.code == 0 and result.json['interrupted'] and result.json['events'] > 0
    assert json.loads((tmp_path / 'out/summary.json').read_text())['interrupted']


def test_shipped_with_a_trace(tool):
    """A scenario that names a file beside it, as it is shipped."""
    result = tool.cli('sim', 'run', ROOT / 'simulator/scenarios/trace.yaml', '--check', '--json', '--quiet').json
    assert result['checks']['passed'] and result['network']['leaves'] == 12 and result['live'] == 40


def test_checkpoint(tool, runs, tmp_path):
    """Saved, interrupted, resumed: by processes that lie elsewhere in memory each time."""
    state, whole = tmp_path / 'state', runs[1][1]['digest']
    saving = ['sim', 'run', TINY, *SMALL, '--json', '--seed', 1, '--threads', 2, '--checkpoint', state]
    assert tool.cli(*saving, '--checkpoint-every', '3m').json['digest'] == whole
    for _ in range(2):
        assert tool.cli('sim', 'resume', state, '--quiet', '--json').json['digest'] == whole
    run = tool.start('sim', 'run', TINY, '--set', 'duration=1000h', '--json', '--checkpoint', state)
    wait_until(lambda: 'events' in run.log, 30, 'a progress line')
    run.signal(signal.SIGINT)
    first = run.result(30).json
    run = tool.start('sim', 'resume', state, '--json', '--checkpoint', state)
    wait_until(lambda: 'events' in run.log, 30, 'a progress line')
    run.signal(signal.SIGINT)
    second = run.result(30).json
    assert second['interrupted'] and second['virtual_s'] > first['virtual_s'] and second['seed'] == first['seed']


def test_no_checkpoint(tool, tmp_path):
    state = tmp_path / 'state'
    assert 'no such file' in tool.cli('sim', 'resume', state, code=1).err.lower()
    state.write_text('kadmsg\n')
    assert 'not a checkpoint' in tool.cli('sim', 'resume', state, code=1).err
    assert '--checkpoint' in tool.cli('sim', 'run', TINY, '--checkpoint-every', 5, code=2).err
    (tmp_path / 'state.part').symlink_to('/dev/full')
    result = tool.cli('sim', 'run', TINY, *SMALL, '--json', '--checkpoint', state, '--checkpoint-every', '7m', code=1)
    assert 'no space left' in result.err and result.json['events'] > 0
    assert state.read_text() == 'kadmsg\n'


def test_replay(tool, tmp_path):
    """The same program gives the same events; a changed setting shows at the first event it changes."""
    tool.cli('sim', 'run', TINY, *SMALL, '--seed', 3, '--out', tmp_path, '--trace', '5,17-20')
    trace = tmp_path / 'trace.jsonl'
    events = [json.loads(line) for line in trace.read_text().splitlines()[1:]]
    assert {event['node'] for event in events} == {5, 17, 18, 19, 20}
    answer = tool.cli('sim', 'replay', trace, '--threads', 2, '--json').json
    assert answer == {'same': True, 'events': len(events)}
    answer = tool.cli('sim', 'replay', trace, '--set', 'gets.start=150s', '--json', code=1).json
    assert not answer['same'] and 0 < answer['events'] < len(events) and answer['trace'] == events[answer['events']]
    assert answer['now']['node'] in (5, 17, 18, 19, 20) and answer['now'] != answer['trace']
    text = tool.cli('sim', 'replay', trace, '--set', 'duration=3min', code=1).text
    assert 'the run has ended' in text
    assert 'not a trace' in tool.cli('sim', 'replay', TINY, code=1).err
    assert 'nodes 0 to' in tool.cli('sim', 'run', TINY, *SMALL, '--out', tmp_path, '--trace', '40', code=2).err
    assert '--out' in tool.cli('sim', 'run', TINY, '--trace', '4', code=2).err
    trace.with_suffix('.jsonl.part').symlink_to('/dev/full')
    assert 'no space left' in tool.cli('sim', 'run', TINY, *SMALL, '--out', tmp_path, '--trace', 'all', code=1).err
    assert len(trace.read_text().splitlines()) == len(events) + 1


def mpirun(world, ranks, *args):
    program = world.program.parent / 'kadmsg-sim-mpi'
    done = subprocess.run(['mpirun', '--allow-run-as-root', '--oversubscribe', '-np', str(ranks), program, *map(str, args)],
                          capture_output=True, text=True, timeout=100)
    return done.returncode, done.stdout, done.stderr


def test_mpi(world, tool, runs):
    """The same run in several processes."""
    for ranks, threads in (1, 2), (2, 1), (3, 2):
        code, out, err = mpirun(world, ranks, 'run', TINY, *SMALL, '--check', '--json', '--seed', 1, '--threads', threads)
        assert code == 0, err
        result = json.loads(out)
        assert result['digest'] == runs[1][1]['digest'] and result['processes'] == ranks
        assert result['lookups'] == runs[1][1]['lookups'] and result['load'] == runs[1][1]['load']


def test_mpi_checkpoint(world, runs, tmp_path):
    state = tmp_path / 'state'
    args = ['run', TINY, *SMALL, '--json', '--seed', 1, '--checkpoint', state, '--checkpoint-every', '5m']
    for args in args, ['resume', state, '--quiet', '--json']:
        code, out, err = mpirun(world, 2, *args)
        assert code == 0, err
        assert json.loads(out)['digest'] == runs[1][1]['digest']
    code, out, err = mpirun(world, 3, 'resume', state)
    assert code != 0 and out == '' and 'of process 0 of 2, this is 0 of 3' in err


def children(pid):
    """Processes of a process, and theirs."""
    direct = [int(child) for task in Path(f'/proc/{pid}/task').glob('*/children') for child in task.read_text().split()]
    return direct + [below for child in direct for below in children(child)]


def test_mpi_lost_process(world, tmp_path):
    """One process of three is killed: all end, and it is said which."""
    program = world.program.parent / 'kadmsg-sim-mpi'
    errors = tmp_path / 'errors'
    with errors.open('w') as err, subprocess.Popen(
            ['mpirun', '--allow-run-as-root', '--oversubscribe', '-np', '3', program, 'run', TINY, '--set', 'duration=1000h'],
            stdout=subprocess.DEVNULL, stderr=err) as run:
        wait_until(lambda: 'events' in errors.read_text(), 60, 'a progress line')
        ranks = [pid for pid in children(run.pid) if Path(f'/proc/{pid}/exe').resolve() == program.resolve()]
        assert len(ranks) == 3
        os.kill(ranks[1], signal.SIGKILL)
        assert run.wait(60) != 0
    assert 'process rank' in errors.read_text() and 'signal 9' in errors.read_text()
    wait_until(lambda: not any(Path(f'/proc/{pid}').exists() for pid in ranks), 30, 'the others have ended')


def test_mpi_mistakes(world, tmp_path):
    for args, word in (['run', TINY, '--set', 'no.such=1'], 'no.such'), (['run', tmp_path / 'none.yaml'], 'none.yaml'):
        code, out, err = mpirun(world, 2, *args)
        assert code != 0 and out == '' and err.count(f'{word}') == 1, err


@pytest.mark.parametrize('text, reason', [
    ('nodes: 10\nnonsense: 1\n', 'bad.yaml:2: '),
    ('nodes: many\n', 'bad.yaml:1: '),
    ('nodes: [1\n', 'bad.yaml:'),
    ('nodes: 10\nnet: {latency: matrix, matrix: /nonexistent}\n', '/nonexistent'),
], ids=['name', 'number', 'yaml', 'matrix'])
def test_bad_scenario(tool, tmp_path, text, reason):
    file = tmp_path / 'bad.yaml'
    file.write_text(text)
    result = tool.cli('sim', 'run', file, code=1)
    assert reason in result.err and result.err.count('\n') == 1 and result.out == b''


def test_bad_use(tool, tmp_path):
    assert 'no setting "no.such"' in tool.cli('sim', 'run', TINY, '--set', 'no.such=1', code=2).err
    assert str(tmp_path / 'none') in tool.cli('sim', 'report', tmp_path / 'none', code=1).err
    assert 'MiB' in tool.cli('sim', 'run', TINY, '--set', 'nodes=100M', code=1).err
    file = tmp_path / 'file'
    file.write_text('')
    assert str(file) in tool.cli('sim', 'run', TINY, *SMALL, '--out', file, code=1).err
    assert not (tmp_path / 'none.yaml').exists() and 'none.yaml' in tool.cli('sim', 'run', tmp_path / 'none.yaml', code=1).err
    tool.cli('sim', 'compare', tmp_path, code=2)
