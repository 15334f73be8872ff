#!/usr/bin/env python3
"""Runs test programs and adds up the results of all groups of `make test`.

run     --group NAME --results DIR --logs DIR [--corpus DIR] PROGRAM…
            every program in a process group and a temporary directory of its own, with a timeout;
            a program of cmocka counts by its tests, any other one as one test. With --corpus,
            PROGRAM is …/<name>_check and gets DIR/<name> as its argument.
pytest  --group NAME --results DIR --build DIR TESTS
summary --results DIR
            one line a group, and as the last line "N passed, N failed".
Exit code 0 only if nothing failed. The log of whatever failed is printed.
"""
import argparse
import concurrent.futures
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOG_LINES = 60


def run_limited(argv, timeout, **kwargs):
    """(exit code or None for a timeout, output); whatever the program started dies with it."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, start_new_session=True, **kwargs) as proc:
        try:
            out, _ = proc.communicate(timeout=timeout)
            code = proc.returncode
        except subprocess.TimeoutExpired:
            os.killpg(proc.pid, signal.SIGKILL)
            out, _ = proc.communicate()
            code = None
    return code, out.decode('utf-8', 'replace')


def count_cmocka(log, code):
    """(passed, failed) of one program; a bad exit without a failed test is one failure."""
    passed = sum(int(n) for n in re.findall(r'^\[  PASSED  \] (\d+) test', log, re.M))
    failed = sum(int(n) for n in re.findall(r'^\[  FAILED  \] \S+: (\d+) test', log, re.M))
    failed = failed or sum(int(n) for n in re.findall(r'^ (\d+) FAILED TEST', log, re.M))
    if code == 0 and failed == 0:
        return (passed or 1), 0
    return passed, (failed or 1)


def store(args, passed, failed):
    folder = Path(args.results)
    folder.mkdir(parents=True, exist_ok=True)
    index = len(list(folder.glob('*.json')))
    result = {'group': args.group, 'passed': passed, 'failed': failed}
    (folder / f'{index:02}.json').write_text(json.dumps(result) + '\n')


def run_program(args, prog):
    argv = [os.path.abspath(prog)]
    name = Path(prog).name
    if args.corpus:
        argv.append(os.path.abspath(os.path.join(args.corpus, re.sub('_check$', '', name))))
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='kadmsg-test-') as tmp:
        code, log = run_limited(argv, args.timeout, env={**os.environ, 'TMPDIR': tmp})
    logs = Path(args.logs)
    logs.mkdir(parents=True, exist_ok=True)
    (logs / f'{name}.log').write_text(log)
    return prog, code, log, time.monotonic() - begin


def cmd_run(args):
    total_passed = total_failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for prog, code, log, seconds in pool.map(lambda p: run_program(args, p), args.programs):
            passed, failed = count_cmocka(log, code)
            total_passed += passed
            total_failed += failed
            if failed:
                why = 'timed out' if code is None else f'exit code {code}'
                print(f'FAIL  {prog} ({why}, {seconds:.1f} s)')
                print('\n'.join('      ' + line for line in log.splitlines()[-LOG_LINES:]))
            elif os.environ.get('V'):
                print(f'ok    {prog} ({passed}, {seconds:.1f} s)')
    store(args, total_passed, total_failed)
    print(f'{args.group}: {total_passed} passed, {total_failed} failed', flush=True)
    return 1 if total_failed else 0


def cmd_pytest(args):
    if not list(Path(args.tests).glob('**/test_*.py')):
        store(args, 0, 0)
        return 0
    build = os.path.abspath(args.build)
    env = {**os.environ, 'KADMSG': build + '/kadmsg', 'KADMSG_BUILD': build,
           'PYTHONDONTWRITEBYTECODE': '1'}
    argv = [sys.executable, '-m', 'pytest', '-q', '--tb=short', '-p', 'no:cacheprovider', args.tests]
    code, log = run_limited(argv, args.timeout, env=env)
    counts = {word: int(n) for n, word in re.findall(r'(\d+) (passed|failed|error|skipped)', log)}
    # A skipped test is one that did not hold what it promises.
    failed = sum(counts.get(word, 0) for word in ('failed', 'error', 'skipped'))
    if code != 0:
        failed = failed or 1
    if failed:
        print(log + ('' if code is not None else f'\ntimed out after {args.timeout} s'))
    store(args, counts.get('passed', 0), failed)
    print(f'{args.group}: {counts.get("passed", 0)} passed, {failed} failed', flush=True)
    return 1 if failed else 0


def cmd_summary(args):
    results = [json.loads(p.read_text()) for p in sorted(Path(args.results).glob('*.json'))]
    print()
    for r in results:
        print(f'{r["group"]:32} {r["passed"]:6} passed {r["failed"]:4} failed')
    passed = sum(r['passed'] for r in results)
    failed = sum(r['failed'] for r in results)
    print(f'{passed} passed, {failed} failed')
    return 0 if passed and not failed else 1


def main():
    parser = argparse.ArgumentParser()
    sub = parser.add_subparsers(required=True)
    run = sub.add_parser('run')
    run.add_argument('--logs', required=True)
    run.add_argument('--corpus')
    run.add_argument('programs', nargs='*')
    run.set_defaults(call=cmd_run)
    pytest = sub.add_parser('pytest')
    pytest.add_argument('--build', required=True)
    pytest.add_argument('tests')
    pytest.set_defaults(call=cmd_pytest)
    for cmd in (run, pytest):
        cmd.add_argument('--group', required=True)
        cmd.add_argument('--timeout', type=float, required=True)
    summary = sub.add_parser('summary')
    summary.set_defaults(call=cmd_summary)
    for cmd in (run, pytest, summary):
        cmd.add_argument('--results', required=True)
    args = parser.parse_args()
    return args.call(args)


if __name__ == '__main__':
    sys.exit(main())
