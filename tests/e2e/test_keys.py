"""Key files: what is made, what is read, what is refused."""
import hashlib
import os

import pytest

GOOD = '0000000000000000000000000000000000000000000000000000000000000001'
GOOD_PK = '0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'


@pytest.fixture
def tool(world):
    return world.place()


def write(tool, text, mode=0o600, name='key'):
    path = tool.dir / name
    path.write_text(text)
    path.chmod(mode)
    return path


def test_gen_prints_two_lines_that_sk_file_reads(tool):
    pk, sk = tool.cli('keys', 'gen').text.splitlines()
    assert len(pk) == 66 and len(sk) == 64
    path = write(tool, f'{pk}\n{sk}\n')
    assert tool.cli('keys', 'show', '--sk-file', path, '--json').json['public_key'] == pk


def test_gen_json(tool):
    first, second = (tool.cli('keys', 'gen', '--json').json for _ in range(2))
    assert set(first) >= {'public_key', 'secret_key'}
    assert first['secret_key'] != second['secret_key']


def test_gen_to_a_file_is_private_and_never_overwrites(tool):
    os.umask(0o022)
    path = tool.dir / 'new'
    made = tool.cli('keys', 'gen', '-o', path, '--json').json
    pk = made['public_key']
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    assert before.split() == [pk, made['secret_key']]
    refused = tool.cli('keys', 'gen', '-o', path, code=1)
    assert str(path) in refused.err
    assert path.read_text() == before


def test_show_tells_key_and_node_id(tool):
    shown = tool.cli('keys', 'show', '--sk-file', write(tool, GOOD + '\n'), '--json').json
    assert shown['public_key'] == GOOD_PK
    assert shown['node_id'] == hashlib.sha256(bytes.fromhex(GOOD_PK)).hexdigest()


@pytest.mark.parametrize('text', [GOOD, GOOD.upper() + '\n', f'{GOOD_PK}\n{GOOD}\n', f'{GOOD_PK}\r\n{GOOD}\r\n'])
def test_accepted_forms(tool, text):
    assert GOOD_PK in tool.cli('keys', 'show', '--sk-file', write(tool, text)).text


@pytest.mark.parametrize('text', ['', '\n', GOOD[:-1], GOOD + '0', 'g' * 64, '0' * 64, 'f' * 64, f'{GOOD_PK}\n',
                                  f'{GOOD_PK}\n{GOOD[:-1]}2\n', f'{GOOD}\n{GOOD}\n', 'x' * 100000])
def test_wrong_key_text_is_a_failure_that_names_the_file(tool, text):
    path = write(tool, text)
    result = tool.cli('keys', 'show', '--sk-file', path, code=1)
    assert result.out == b'' and str(path) in result.err and len(result.err.splitlines()) == 1
    assert GOOD not in result.err


@pytest.mark.parametrize('mode', [0o620, 0o602, 0o666])
def test_a_key_that_others_can_write_is_refused(tool, mode):
    path = write(tool, GOOD, mode)
    for args in (['keys', 'show'], ['node', '--listen', '127.0.0.1:0']):
        result = tool.cli(*args, '--sk-file', path, code=1)
        assert result.out == b'' and str(path) in result.err


def test_a_key_that_others_can_read_is_warned_about(tool):
    path = write(tool, GOOD, 0o644)
    result = tool.cli('keys', 'show', '--sk-file', path)
    assert GOOD_PK in result.text and str(path) in result.err
    assert tool.cli('keys', 'show', '--sk-file', write(tool, GOOD, 0o600, 'private')).err == ''


@pytest.mark.parametrize('name', ['missing', '.'])
def test_a_key_file_that_cannot_be_read(tool, name):
    path = tool.dir / name
    result = tool.cli('keys', 'show', '--sk-file', path, code=1)
    assert result.out == b'' and str(path) in result.err


def test_key_from_stdin(tool):
    assert GOOD_PK in tool.cli('keys', 'show', '--sk-file', '-', input=GOOD.encode()).text
