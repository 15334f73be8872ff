"""Usage: help of every command, and mistakes that are found before anything is opened or changed."""
import pytest

PK = '0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'
COMMANDS = [['keys'], ['keys', 'gen'], ['keys', 'show'], ['node'], ['status'], ['dht'], ['dht', 'put'], ['dht', 'get'],
            ['dht', 'list'], ['dht', 'peers'], ['dht', 'status'], ['dht', 'why'], ['dht', 'del'], ['dht', 'lookup'], ['dht', 'sync'], ['dht', 'reconcile'], ['entry'], ['entry', 'get'],
            ['entry', 'publish'], ['nc'], ['ping'], ['store'], ['store', 'stat'], ['store', 'dump'], ['store', 'load'],
            ['store', 'verify'], ['version'], ['help'], ['ip'], ['self-ping'], ['server', 'dial'], ['conf'], ['conf', 'gen-keys'],
            ['conf', 'verify-keys'], ['conf', 'print'], ['iperf'], ['iperf', 'server'], ['completion']]
WRONG = [
    ['no-such-command'], ['keys', 'no-such'], ['dht', 'no-such'], ['entry', 'no-such'], ['store', 'no-such'],
    ['keys', 'gen', '--no-such-flag'], ['keys', 'show'], ['keys', 'gen', 'surplus'], ['keys', 'gen', '-o'],
    ['node', '--no-such-flag'], ['node', 'surplus'], ['node', '--listen'],
    ['node', '--listen', '127.0.0.1:65536'], ['node', '--listen', '127.0.0.1:-1'], ['node', '--listen', '127.0.0.1:x'],
    ['node', '--listen', '127.0.0.1'], ['node', '--listen', ''],
    ['node', '--bootstrap', '127.0.0.1:8081'], ['node', '--bootstrap', f'{PK}@127.0.0.1:0'],
    ['node', '--bootstrap', f'{PK[:-1]}@127.0.0.1:8081'], ['node', '--bootstrap', f'{PK[:-1]}g@127.0.0.1:8081'],
    ['node', '--bootstrap', f'02{"f" * 64}@127.0.0.1:8081'], ['node', '--bootstrap', f'{PK}@127.0.0.1:65536'],
    ['node', '--max-sessions', '-1'], ['node', '--max-sessions', 'many'], ['node', '--full=perhaps'],
    ['dht', 'get'], ['dht', 'get', PK], ['dht', 'get', PK[:-2], 'note'], ['dht', 'get', '04' + PK[2:], 'note'],
    ['dht', 'get', PK, 'note', 'surplus'], ['dht', 'put', 'note'], ['dht', 'put', 'note', 'value', 'surplus'],
    ['dht', 'put', 'note', 'value', '--seq', '-1'], ['dht', 'put', 'note', 'value', '--seq', '18446744073709551616'],
    ['dht', 'put', 'note', 'value', '--seq', '1x'], ['dht', 'put', 'note', 'value', '--seq', ''],
    ['dht', 'why'], ['dht', 'why', 'x'], ['entry', 'get'], ['entry', 'get', PK + '00'],
    ['nc'], ['nc', PK], ['nc', f'{PK}:0'], ['nc', f'{PK}:65536'], ['nc', f'{PK}:x'], ['nc', f'{PK}:'], ['nc', '-l'],
    ['nc', '-l', '0'], ['nc', '-l', '65536'], ['nc', '-l', 'x'], ['ping'], ['ping', 'x'],
    ['ping', PK, '--timeout', '0x'], ['ping', PK, '--timeout', '-1'], ['ping', PK, '--bootstrap', 'nobody'],
]


@pytest.fixture
def tool(world):
    return world.place()


@pytest.mark.parametrize('command', COMMANDS, ids=' '.join)
def test_help_of_every_command(tool, command):
    shown = tool.cli(*command, '--help')
    assert 'kadmsg' in shown.text and shown.err == ''


def test_help_names_every_command(tool):
    text = tool.cli('help').text
    missing = [c[0] for c in COMMANDS if c[0] not in text]
    assert not missing


def test_alone_it_prints_the_commands_and_exits_2(tool):
    result = tool.cli(code=2)
    for command in ('node', 'keys', 'dht', 'nc'):
        assert command in result.text + result.err


@pytest.mark.parametrize('args', WRONG, ids=lambda a: ' '.join(a)[:60])
def test_wrong_usage(tool, args):
    result = tool.cli(*args, code=2)
    assert result.out == b'' and result.err.strip()
    # Nothing was opened or changed: no state directory, no key, no socket.
    assert list(tool.dir.iterdir()) == []


def test_flags_stand_anywhere_and_in_both_forms(world, tool):
    path = tool.dir / 'key'
    pk = tool.cli('keys', 'gen', '--json', '-o', path).json['public_key']
    for args in (['--sk-file', path, '--json'], [f'--sk-file={path}', '--json'], ['--json', f'--sk-file={path}']):
        assert tool.cli('keys', 'show', *args).json['public_key'] == pk


def test_version(tool):
    assert tool.cli('version').text.strip()
    assert tool.cli('version', '--json').json['version']
