#!/usr/bin/env python3
"""Checks that the tree stands alone; run by `make lint`.

No tracked file may name a private folder of somebody's machine, a registry or mirror host, or a
relative path that climbs out of the repository (in a link, an include, a script). Prints
file:line: what; exit 1 if there is anything. --self-test checks the checker.
"""
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# A tree that belongs to one machine, not to a system. In the protocol pages, recorded data and
# corpora such a name may be a peer's (a URL path, a test case), never a reference of ours.
PRIVATE = re.compile(r'(?<![\w.~/:-])/(?:home|root|Users|mnt|media|work|farm|workspace)/')
MIRROR = re.compile(r'registry\.npmjs|proxy\.golang|files\.pythonhosted|deb\.debian\.org')
CLIMB = re.compile(r'(?:\]\(|include\s*["<]|[\s`"\'=(])((?:\.\./)+[\w./-]+)')
RECORDED = re.compile(r'^(docs/protocol/|tests/vectors/|tests/fuzz/corpus/)')


def check_line(name, line):
    if MIRROR.search(line):
        return 'names a registry or mirror host'
    if RECORDED.match(name) and not name.endswith('.md'):
        return None
    if PRIVATE.search(line) and not RECORDED.match(name):
        return 'names a path of one machine'
    for climb in CLIMB.findall(line):
        if os.path.normpath(os.path.join(os.path.dirname(name), climb)).startswith('..'):
            return f'{climb} is outside the repository'
    return None


def self_test():
    good = [('docs/a.md', 'see [x](../README.md)'), ('a.c', '#include "base/a.h"'),
            ('docs/a.md', 'under /etc/kadmsg/ and /run/kadmsg/'), ('tests/e2e/a.py', 'x/../y'),
            ('docs/protocol/a.md', 'GET /home/x'), ('docs/protocol/a.md', '`../` in a path')]
    bad = [('docs/a.md', 'see [x](../../x.md)'), ('README.md', 'see `../x/y.md`'),
           ('Makefile', 'X := ../x'), ('a.py', 'open("' + '/home' + '/me/x")'),
           ('docs/protocol/a.md', 'see `../../../x.json`'), ('a.sh', 'https://' + 'deb.debian' + '.org')]
    for name, line in good:
        assert not check_line(name, line), (name, line)
    for name, line in bad:
        assert check_line(name, line), (name, line)


def main():
    if sys.argv[1:] == ['--self-test']:
        self_test()
        return 0
    names = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
                           cwd=ROOT, check=True, capture_output=True).stdout.decode().split('\0')
    failed = False
    for name in filter(None, names):
        path = ROOT / name
        if name == 'scripts/check_outside.py' or not path.is_file():
            continue
        for number, line in enumerate(path.read_bytes().decode('utf-8', 'replace').split('\n'), 1):
            reason = check_line(name, line)
            if reason:
                print(f'{name}:{number}: {reason}')
                failed = True
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
