#!/usr/bin/env python3
"""docs/incidents.md is true: each test that it names exists in its file, and the file says the number.

    scripts/check_incidents.py               checks the tree
    scripts/check_incidents.py --self-test   checks the check
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r'^\|\s*(\d+)\s*\|[^|]*\|[^|]*\|([^|]*)\|$')
FILE = re.compile(r'`([^`]+)`((?:\s+\w+)*)')
SAID = re.compile(r'incidents?[ _](\d+(?:(?:, | and )\d+)*)', re.IGNORECASE)


def said(text):
    return {int(n) for group in SAID.findall(text) for n in re.findall(r'\d+', group)}


def defined(text):
    return set(re.findall(r'^(?:static void|def) (test_\w+)', text, re.MULTILINE))


def problems(page, read):
    """What is wrong; read(file) gives its text or None."""
    found = []
    numbers = []
    for line in page.splitlines():
        row = ROW.match(line)
        if row is None:
            continue
        number, tests = int(row.group(1)), FILE.findall(row.group(2))
        numbers.append(number)
        texts = [read(file) or '' for file, _ in tests]
        if not tests:
            found.append(f'{number}: no test')
        for (file, names), text in zip(tests, texts):
            missing = [file] if text == '' else sorted(set(names.split()) - defined(text))
            found += [f'{number}: {name} does not exist' for name in missing]
        if tests and not any(number in said(text) for text in texts):
            found.append(f'{number}: no file of its tests says the number')
    if numbers != sorted(set(numbers)):
        found.append('numbers are not in order')
    if not numbers:
        found.append('no rows')
    return found


def self_test():
    files = {'a.c': 'static void test_x(void **s)\n/* incidents 3, 4 and 5 */', 'b.py': 'def test_incident_7_y():\n'}
    good = '| 3 | a | b | `a.c` test_x |\n| 4 | a | b | `a.c` |\n| 7 | a | b | `a.c` test_x, `b.py` test_incident_7_y |\n'
    assert problems(good, files.get) == []
    for bad in ('', '| 3 | a | b | nothing |', '| 3 | a | b | `c.c` test_x |', '| 3 | a | b | `a.c` test_z |',
                '| 6 | a | b | `a.c` test_x |', '| 4 | a | b | `a.c` |\n| 3 | a | b | `a.c` |'):
        assert problems(bad, files.get), bad


def read(file):
    path = ROOT / 'tests' / file
    return path.read_text(errors='replace') if path.is_file() else None


def main():
    if sys.argv[1:] == ['--self-test']:
        self_test()
        return 0
    found = problems((ROOT / 'docs/incidents.md').read_text(), read)
    for line in found:
        print(f'docs/incidents.md: {line}', file=sys.stderr)
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())
