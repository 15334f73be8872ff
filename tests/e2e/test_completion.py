"""Completion scripts, as real shells use them."""
import os
import pty
import select
import subprocess
import time

import pytest
from procs import Failed

# What is typed, and what is offered for it (among others, or nothing else).
CASES = [
    ('kadmsg dh', {'dht'}, True),
    ('kadmsg dht p', {'peers', 'put'}, True),
    ('kadmsg server ', {'dial'}, False),
    ('kadmsg dht put --se', {'--seq', '--sess'}, True),
    ('kadmsg curl --locat', {'--location'}, True),
    ('kadmsg curl --loglvl ', {'panic', 'fatal', 'error', 'warn', 'info', 'debug', 'trace'}, True),
    ('kadmsg curl -l tr', {'trace'}, True),
    ('kadmsg web srv --lp', {'--lport'}, True),
    ('kadmsg completion ', {'bash', 'zsh', 'fish'}, True),
    ('kadmsg node --config co', {'conf-file'}, True),
    ('kadmsg http --dir fo', {'folder'}, True),
    ('kadmsg ping --json --so', set(), True),
]


@pytest.fixture
def tool(world):
    place = world.place()
    (place.dir / 'conf-file').write_text('')
    (place.dir / 'folder').mkdir()
    for shell in ('bash', 'zsh', 'fish'):
        (place.dir / f'_{shell}').mkdir()
        script = place.cli('completion', shell).text
        (place.dir / f'_{shell}' / '_kadmsg').write_text(script)
    return place


def ask(tool, argv, code):
    done = subprocess.run([*argv, code], cwd=tool.dir, env={**tool.env, 'TERM': 'dumb'}, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60)
    if done.returncode != 0 or done.stderr:
        raise Failed(f'{argv}: exit code {done.returncode}: {done.stderr.decode()}')
    return {line.split('\t')[0].rstrip('/') for line in done.stdout.decode().splitlines()}


def check(offered, expected, exactly, typed):
    offered -= {'_bash', '_zsh', '_fish', 'state', 'run'}
    assert offered == expected if exactly else offered >= expected, (typed, offered)


@pytest.mark.parametrize('typed, expected, exactly', CASES, ids=lambda v: v if isinstance(v, str) else None)
def test_bash(tool, typed, expected, exactly):
    words = typed.split(' ')
    quoted = ' '.join(f"'{w}'" for w in words)
    code = (f'source _bash/_kadmsg; compopt() {{ :; }}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _kadmsg; '
            'for w in "${COMPREPLY[@]}"; do echo "$w"; done')
    check(ask(tool, ['bash', '--norc', '--noprofile', '-u', '-c'], code), expected, exactly, typed)


def test_bash_registers_and_takes_the_equals_sign(tool):
    """Readline splits --loglvl=tr into three words; and `complete` knows the function."""
    code = ("source _bash/_kadmsg; complete -p kadmsg >/dev/null || exit 9; COMP_WORDS=(kadmsg curl --loglvl = tr); "
            'COMP_CWORD=4; _kadmsg; echo "${COMPREPLY[@]}"; COMP_WORDS=(kadmsg curl --loglvl =); COMP_CWORD=3; _kadmsg; '
            'echo "${#COMPREPLY[@]}"')
    assert ask(tool, ['bash', '--norc', '--noprofile', '-c'], code) == {'trace', '7'}


@pytest.mark.parametrize('typed, expected, exactly', CASES, ids=lambda v: v if isinstance(v, str) else None)
def test_fish(tool, typed, expected, exactly):
    code = f"source _fish/_kadmsg; complete -C '{typed}'"
    check(ask(tool, ['fish', '--no-config', '-c'], code), expected, exactly, typed)


class Zsh:
    """An interactive shell on a terminal: its completion system works nowhere else."""

    def __init__(self, tool):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(tool.dir)
            os.execvpe('zsh', ['zsh', '-f', '-i'], {**tool.env, 'TERM': 'dumb', 'COLUMNS': '1000', 'PS1': ''})
        self.seen = ''
        self.send("unsetopt zle_bracketed_paste; stty cols 1000; fpath=(_zsh $fpath); autoload -Uz compinit; "
                  "compinit -u -D; zstyle ':completion:*' list-prompt ''; LISTMAX=0; PS1=; print rea''dy\n")
        self.until('ready')

    def send(self, text):
        os.write(self.fd, text.encode())

    def until(self, text, limit=45):
        """What was shown up to this text."""
        deadline = time.monotonic() + limit
        while text not in self.seen:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise Failed(f'{text!r} does not come: {self.seen!r}')
            self.seen += os.read(self.fd, 65536).decode('utf-8', 'replace')
        before, _, self.seen = self.seen.partition(text)
        return before

    def close(self):
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def test_zsh(tool):
    shell = Zsh(tool)
    try:
        # What is typed is shown too: the texts are some that only the completion can bring.
        for typed, text in [('kadmsg dht p\t\t', 'the routing table'), ('kadmsg dht put --seq\t\t', 'force this'),
                            ('kadmsg curl --loglvl \t\t', 'trace'), ('kadmsg server \t\t', 'dial'),
                            ('kadmsg http --dir fo\t', 'lder/'), ('kadmsg web srv --\t\t', 'lport')]:
            shell.send('\x15' + typed)
            shell.until(text)
    finally:
        shell.close()


@pytest.mark.parametrize('shell', ['tcsh', ''])
def test_unknown_shell(tool, shell):
    assert tool.cli('completion', *filter(None, [shell]), code=2).out == b''


def test_installed(tool):
    """`make install` puts them where the shells look, and they are what the program prints."""
    root = tool.world.program.parent / 'stage/usr/local/share'
    for shell, path in [('bash', 'bash-completion/completions/kadmsg'), ('zsh', 'zsh/site-functions/_kadmsg'),
                        ('fish', 'fish/vendor_completions.d/kadmsg.fish')]:
        assert (root / path).read_bytes() == tool.cli('completion', shell).out
