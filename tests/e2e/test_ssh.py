"""ssh through a stream: web srv in front of an sshd, a fixed forward in front of the client."""
import random
import subprocess

import pytest
from local import MIB, digest
from sshd import Sshd


@pytest.fixture(scope='module')
def sshd(net):
    return Sshd(net[3])


@pytest.fixture
def port(net, run, sshd):
    _, a, b, _ = net
    run(b, 'web', 'srv', '-p', sshd.port, '-d', '22', '--wl', a.pk)
    return run(a, 'web', '-t', f'{b.pk}:22', '-p', '0', '-c', 'true').ready['port']


def test_ssh(net, sshd, port):
    done = sshd.ssh('echo out; echo err >&2; exit 7', port=port)
    assert (done.returncode, done.stdout, done.stderr) == (7, b'out\n', b'err\n')
    data = random.Random(8).randbytes(8 * MIB)
    assert sshd.ssh('sha256sum', port=port, data=data).stdout.decode().split()[0] == digest(data)
    assert sshd.ssh('-o', 'RekeyLimit=1M', 'cat', port=port, data=data).stdout == data
    (sshd.folder / 'data').write_bytes(data)
    subprocess.run(['scp', *sshd.options(), '-P', str(port), f'127.0.0.1:{sshd.folder}/data', sshd.folder / 'copy'],
                   check=True, timeout=60)
    assert (sshd.folder / 'copy').read_bytes() == data


def test_ssh_of_a_stranger(net, run, sshd):
    """The relay's key is not in the whitelist of the forward: sshd never hears of it."""
    relay, a, b, _ = net
    run(b, 'web', 'srv', '-p', sshd.port, '-d', '23', '--wl', a.pk)
    port = run(relay, 'web', '-t', f'{b.pk}:23', '-p', '0').ready['port']
    before = sshd.log.read_bytes()
    assert sshd.ssh('true', port=port).returncode == 255
    assert sshd.log.read_bytes() == before
