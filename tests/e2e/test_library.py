"""The installed library: what an outside program sees of it, and the example program built against it, in a real network.

`make e2e` installs into BUILD/stage (make stage) before this runs.
"""
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from net import find_entry
from procs import wait_until

ROOT = Path(__file__).resolve().parents[2]
STAGE = Path(os.environ.get('KADMSG', ROOT / 'build/kadmsg')).resolve().parent / 'stage'
LIB = STAGE / 'usr/local/lib'
SANITIZE = [f'-fsanitize={os.environ["KADMSG_SAN"]}'] if os.environ.get('KADMSG_SAN') else []


def run(*args, env=None, code=0, timeout=60):
    done = subprocess.run([str(a) for a in args], env=env, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == code, f'{args}: {done.returncode}\n{done.stdout}{done.stderr}'
    return done.stdout


def pkg_config(*args):
    env = dict(os.environ, PKG_CONFIG_SYSROOT_DIR=str(STAGE))
    env['PKG_CONFIG_PATH'] = str(LIB / 'pkgconfig')
    return run('pkg-config', *args, 'kadmsg', env=env).split()


def symbols(*args):
    lines = (line.split() for line in run('nm', '--defined-only', *args).splitlines())
    return {words[2] for words in lines if len(words) == 3}


def declared():
    """The functions of the header."""
    text = (STAGE / 'usr/local/include/kadmsg.h').read_text()
    return set(re.findall(r'^KADMSG_API [^(;]*?\b(kadmsg_\w+)\(', text, re.M))


@pytest.fixture(scope='module', params=['shared', 'static'])
def example(request, tmp_path_factory):
    """The example, compiled outside the tree with nothing but what was installed."""
    place = tmp_path_factory.mktemp('example')
    program, source = place / 'example', ROOT / 'docs/example/example.c'
    if request.param == 'shared':
        libs = [*pkg_config('--libs'), f'-Wl,-rpath,{LIB}']
    else:
        libs = [LIB / 'libkadmsg.a', *(flag for flag in pkg_config('--libs', '--static') if flag != '-lkadmsg')]
    run('cc', *SANITIZE, '-Wall', '-Wextra', '-Werror', source, '-o', program, *pkg_config('--cflags'), *libs, '-levent_core')
    assert ('libkadmsg.so' in run('readelf', '-d', program)) == (request.param == 'shared')
    return program


def test_only_its_own_names_are_visible():
    names = declared()
    assert len(names) > 30
    assert symbols('-D', LIB / 'libkadmsg.so') == names
    assert symbols('-g', LIB / 'libkadmsg.a') == names


def test_it_needs_no_http():
    """What only the program needs is not asked of those who link the library."""
    needed = re.findall(r'NEEDED.*\[lib(\w+)', run('readelf', '-d', LIB / 'libkadmsg.so'))
    assert 'lmdb' in needed
    assert not {'microhttpd', 'curl', 'jansson', 'hiredis', 'yaml', 'systemd'} & set(needed)
    undefined = run('nm', '-u', LIB / 'libkadmsg.a')
    assert not re.search(r' (MHD|curl|json|redis)_', undefined)


def test_pkg_config():
    assert f'-I{STAGE}/usr/local/include' in pkg_config('--cflags')
    assert pkg_config('--libs') == [f'-L{STAGE}/usr/local/lib', '-lkadmsg']
    static = pkg_config('--libs', '--static')
    assert '-llmdb' in static
    assert not {'-lmicrohttpd', '-lcurl', '-ljansson'} & set(static)


def test_the_header_stands_alone(tmp_path):
    """Strict C99 with no other header."""
    source = tmp_path / 'a.c'
    source.write_text('#include <kadmsg.h>\nint main(void) { return kadmsg_version() == 0; }\n')
    link = ['-o', tmp_path / 'a', f'-L{LIB}', '-lkadmsg', f'-Wl,-rpath,{LIB}']
    run('cc', *SANITIZE, '-std=c99', '-pedantic', '-Wall', '-Werror', source, *pkg_config('--cflags'), *link)
    run(tmp_path / 'a')


def test_values(world, relay, example):
    """What the library publishes, the program reads, and the other way round."""
    wait_until(lambda: relay.try_cli('entry', 'get', relay.pk).code == 0, 20, 'entry of the relay')
    pk = run(example, relay.join, 'put', 'note', 'of the library').strip()
    assert relay.cli('dht', 'get', pk, 'note', '--json').json['value'] == 'of the library'
    relay.cli('dht', 'put', 'note', 'of the program')
    assert run(example, relay.join, 'get', relay.pk, 'note') == 'of the program'
    run(example, relay.join, 'get', relay.pk, 'no such note', code=1)
    assert run(example, relay.join, 'entry', relay.pk).split() == [relay.pk]


def test_watch(world, relay, example):
    relay.cli('dht', 'put', 'watched', 'one')
    watcher = subprocess.Popen([example, relay.join, 'watch', relay.pk, 'watched', '2'], stdout=subprocess.PIPE, text=True)
    try:
        assert watcher.stdout.readline() == 'one\n'
        relay.cli('dht', 'put', 'watched', 'two')
        assert watcher.stdout.readline() == 'two\n'
        assert watcher.wait(20) == 0
    finally:
        watcher.kill()
        watcher.wait()
        watcher.stdout.close()


def test_streams(world, relay, example):
    """Library to library, and the program's nc to the library; then it takes leave."""
    listener = subprocess.Popen([example, relay.join, 'listen', '77'], stdout=subprocess.PIPE, text=True)
    try:
        pk = listener.stdout.readline().strip()
        assert find_entry(relay, pk)
        assert run(example, relay.join, 'echo', pk, '77', 'hello over there') == 'hello over there'
        data = os.urandom(700_000)
        assert relay.cli('nc', f'{pk}:77', input=data).out == data
        run(example, relay.join, 'echo', pk, '78', 'nobody listens', code=1)
        listener.send_signal(signal.SIGINT)
        assert listener.wait(20) == 0
        wait_until(lambda: relay.try_cli('dht', 'get', pk, 'dmsg').code == 3, 20, 'withdrawn entry')
    finally:
        listener.kill()
        listener.wait()
        listener.stdout.close()


def test_failures(world, relay, example):
    run(example, 'nonsense', 'put', 'a', 'b', code=1)
    run(example, relay.join, 'get', 'nonsense', 'b', code=2)
    run(example, code=2)
