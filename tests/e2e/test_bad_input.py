"""What cannot work: one line that names the thing and the reason, the right exit code, and nothing lost."""
import ctypes
import json
import resource
import signal
import socket
import struct
import subprocess
import time

import pytest
from net import committed, settled
from procs import wait_until


def refuses(node, *names, extra=()):
    """The node ends with 1, says why in one line with all these names, and prints nothing on stdout."""
    proc = node.begin(*extra).proc
    assert proc.wait() == 1, proc.describe()
    assert proc.out_path.read_bytes() == b''
    lines = [line for line in proc.log.splitlines() if all(str(name) in line for name in names)]
    assert len(lines) == 1, proc.describe()
    return lines[0]


def solo(world, name='one'):
    return world.make(name, '--full', '--listen', '127.0.0.1:0')


# ---- addresses and ports ----

def test_port_in_use(world):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        address = f'127.0.0.1:{taken.getsockname()[1]}'
        node = world.make('one', '--full', '--listen', address)
        refuses(node, address)
    node.up()


def test_address_that_is_not_ours(world):
    refuses(world.make('one', '--full', '--listen', '192.0.2.1:8081'), '192.0.2.1:8081')


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@pytest.mark.parametrize('command', [['dht', 'get', 'PK', 'note'], ['dht', 'put', 'note', 'x'], ['entry', 'get', 'PK'], ['ping', 'PK'],
                                     ['nc', 'PK:80'], ['dht', 'peers']], ids=' '.join)
def test_bootstrap_unreachable(world, command):
    tool = world.place()
    pk = tool.cli('keys', 'gen', '--json').json['public_key']
    address = f'127.0.0.1:{free_port()}'
    args = [arg.replace('PK', pk) for arg in command]
    result = tool.cli(*args, '--bootstrap', f'{pk}@{address}', '--timeout', '2', code=6)
    assert result.out == b''
    assert pk in result.err and address in result.err and 'refused' in result.err.lower()


def test_bootstrap_that_has_another_key(world, relay):
    tool = world.place()
    pk = tool.cli('keys', 'gen', '--json').json['public_key']
    result = tool.cli('dht', 'get', pk, 'note', '--bootstrap', f'{pk}@{relay.relay}', '--timeout', '3', code=6)
    assert result.out == b'' and pk in result.err and relay.relay in result.err


def test_bootstrap_that_says_nothing(world):
    """Something listens, accepts, and is silent: the time limit holds."""
    tool = world.place()
    pk = tool.cli('keys', 'gen', '--json').json['public_key']
    with socket.socket() as mute:
        mute.bind(('127.0.0.1', 0))
        mute.listen()
        address = f'127.0.0.1:{mute.getsockname()[1]}'
        begin = time.monotonic()
        result = tool.try_cli('dht', 'get', pk, 'note', '--bootstrap', f'{pk}@{address}', '--timeout', '2')
    assert result.code in (5, 6) and address in result.err and time.monotonic() - begin < 15


def test_no_server_at_all(world):
    tool = world.place()
    pk = tool.cli('keys', 'gen', '--json').json['public_key']
    for args in (['dht', 'get', pk, 'note'], ['entry', 'get', pk], ['ping', pk], ['nc', f'{pk}:80']):
        result = tool.cli(*args, '--timeout', '2', code=6)
        assert result.out == b'' and result.err.strip()


def test_a_node_outlives_an_unreachable_bootstrap(world):
    """It says so, keeps trying, and serves what it can."""
    pk = world.place().cli('keys', 'gen', '--json').json['public_key']
    node = world.node('one', '--bootstrap', f'{pk}@127.0.0.1:{free_port()}')
    status = node.status
    assert status['sessions'] == 0 and status['routing_peers'] == 0
    node.cli('dht', 'put', 'note', 'x', code=6)
    assert node.cli('dht', 'get', node.pk, 'note').text.rstrip('\n') == 'x'
    node.stop()


# ---- store ----

def test_store_path_is_a_file(world):
    node = solo(world)
    node.store.write_text('precious')
    refuses(node, node.store)
    assert node.store.read_text() == 'precious'


def test_store_path_below_a_file(world):
    node = solo(world)
    (node.dir / 'file').write_text('precious')
    node.store = node.dir / 'file/store'
    refuses(node, node.store)


def filled_store(world):
    """A stopped node with something in its store; returns the node and what it had."""
    node = solo(world).up()
    for i in range(20):
        node.cli('dht', 'put', f's{i}', 'x' * 1000)
    have = node.cli('dht', 'list', '--json').rows
    node.stop()
    return node, sorted((row['target'], row['seq']) for row in have if row['salt'].startswith('s'))


@pytest.mark.parametrize('damage', ['garbage', 'empty', 'half', 'one page', 'text'])
def test_corrupted_store(world, damage):
    """Refused by name and untouched, and good again when the good file is back."""
    node, have = filled_store(world)
    data = node.store / 'data.mdb'
    good = data.read_bytes()
    bad = {'garbage': bytes(range(256)) * (len(good) // 256), 'empty': b'\n', 'half': good[:len(good) // 2 // 4096 * 4096],
           'one page': good[:4096], 'text': b'not a database\n'}[damage]
    data.write_bytes(bad)
    refuses(node, node.store)
    assert data.read_bytes() == bad
    data.write_bytes(good)
    node.up()
    again = {(row['target'], row['seq']) for row in node.cli('dht', 'list', '--json').rows}
    assert again >= set(have)


def test_corrupted_records_are_counted_not_served(world):
    """Bit rot in the records themselves: store verify tells, the node does not fall over."""
    node, _ = filled_store(world)
    data = node.store / 'data.mdb'
    good = data.read_bytes()
    assert b'x' * 1000 in good
    data.write_bytes(good.replace(b'x' * 1000, b'x' * 999 + b'y'))
    result = world.place().cli('store', 'verify', '--store', node.store, code=1)
    assert result.out + result.err.encode()
    node.up()
    assert node.status['public_key'] == node.pk


@pytest.mark.parametrize('step, word', [(1, 'newer'), (-1, 'older')])
def test_store_of_another_schema(world, step, word):
    """Refused with both numbers, untouched."""
    node, _ = filled_store(world)
    data = node.store / 'data.mdb'
    ours = json.loads(node.cli('store', 'stat', '--store', node.store, '--json').out)['schema']
    other = set_schema(data.read_bytes(), ours + step)
    data.write_bytes(other)
    line = refuses(node, node.store, f'schema {ours + step} is {word}', f"program's {ours}")
    assert data.read_bytes() == other
    result = world.place().cli('store', 'stat', '--store', node.store, code=1)
    assert result.out == b'' and str(node.store) in result.err
    data.write_bytes(set_schema(other, ours))
    node.up()


def set_schema(data, version):
    """The store's schema record, 33 zero bytes | "schema" -> SipHash | u32, with another number."""
    key = bytes(33) + b'schema'
    sodium = ctypes.CDLL('libsodium.so.23')

    def siphash(sip_key, text):
        out = ctypes.create_string_buffer(8)
        sodium.crypto_shorthash(out, text, ctypes.c_ulonglong(len(text)), sip_key)
        return out.raw

    name = b'kadmsg store'.ljust(16, b'\0')
    value = struct.pack('>I', version)
    record = siphash(name[:8] + siphash(name, key), value) + value
    parts = data.split(key)
    assert len(parts) > 1
    return parts[0] + b''.join(key + record + part[len(record):] for part in parts[1:])


# ---- disk full ----

def test_disk_full(world):
    """The file cannot grow any more: puts are refused, old data is intact, the relay relays; with room again all is well."""
    node = solo(world)
    # What a full disk does, without a file system of our own: writes beyond the limit fail.
    node.limits.append(lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN))
    node.up()
    node.cli('dht', 'put', 'before', 'x' * 1000)
    committed(node)
    size = (node.store / 'data.mdb').stat().st_size
    resource.prlimit(node.proc.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    refused = None
    for i in range(60):
        result = node.try_cli('dht', 'put', f'more {i}', 'x' * 50_000)
        if result.code != 0:
            refused = result
            break
    wait_until(lambda: refused or node.status['store']['last_error'], 10, 'the node noticed')
    assert node.cli('dht', 'get', node.pk, 'before').text.startswith('xxx')
    visor = world.node('visor', '--bootstrap', node.join)
    wait_until(lambda: visor.status['sessions'] == 1, 15, 'the relay still relays')
    resource.prlimit(node.proc.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_until(lambda: node.try_cli('dht', 'put', 'after', 'room').code == 0, 15, 'puts work again')
    committed(node)
    node.kill()
    node.up()
    assert node.cli('dht', 'get', node.pk, 'before').text.startswith('xxx')
    assert node.cli('dht', 'get', node.pk, 'after').text.rstrip('\n') == 'room'


def test_stdout_full(world, relay):
    """A command that cannot write its answer has failed."""
    with open('/dev/full', 'wb') as full:
        done = subprocess.run([world.program, 'status', '--json'], env=relay.env, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and done.stderr


# ---- configuration file ----

def config(node, **members):
    path = node.dir / 'config.json'
    path.write_text(members.pop('text', None) or json.dumps(members))
    return path


def test_config_file(world, relay):
    """The names of the flags; flags win."""
    node = world.make('one')
    path = config(node, full=True, listen='127.0.0.1:0', bootstrap=[relay.join], control=str(node.dir / 'from-config'))
    node.up('--config', path)
    assert node.proc.ready['relay'] and node.proc.ready['control'] == str(node.dir / 'from-config')
    settled([relay])
    node.stop()
    node.up('--config', path, '--control', node.dir / 'from-flag')
    assert node.proc.ready['control'] == str(node.dir / 'from-flag')


@pytest.mark.parametrize('text, names', [
    ('{"listen": 8081}', ['listen']), ('{"full": "yes, please"}', ['full']), ('{"bootstrap": ["nobody"]}', ['bootstrap', 'nobody']),
    ('{"listen": "127.0.0.1:99999"}', ['listen']), ('{"max-sessions": -1}', ['max-sessions']), ('[]', []), ('{', []), ('', []),
    ('{"full": true, "full": false}', []), ('{"full": true} x', []), ('"\\ud800"', [])])
def test_wrong_configuration(world, text, names):
    node = world.make('one')
    path = config(node, text=text or ' ')
    refuses(node, path, *names, extra=['--config', path])


def test_missing_configuration(world):
    node = world.make('one')
    refuses(node, node.dir / 'none.json', extra=['--config', node.dir / 'none.json'])


def test_sample_configuration_is_accepted(world):
    """The sample that the program prints is one that it reads."""
    node = world.make('one')
    sample = node.cli('node', '--sample-config').text
    path = config(node, text=sample)
    node.begin('--config', path, '--listen', '127.0.0.1:0').proc.wait_ready()
