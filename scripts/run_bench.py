#!/usr/bin/env python3
"""Runs the benches of tests/bench and prints their JSON lines: `make bench [BENCH=name] [OUT=file]`.

A bench is a program BUILD/bench/bench_<name> or a script tests/bench/bench_<name>.py; it finds the
build directory in KADMSG_BUILD, the programs in KADMSG and KADMSG_LOAD, and prints one JSON object
a measurement: name, params, value, unit, cpu_s, peak_rss_kib, ceiling, ratio. The version is added
here. A bench that fails or prints something else makes the exit code 1; the others still run.
"""
import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEMBERS = ('name', 'params', 'value', 'unit', 'cpu_s', 'peak_rss_kib', 'ceiling', 'ratio')
TIMEOUT_S = 1800


def find_benches(build, wanted):
    benches = {p.name: [str(p)] for p in sorted((build / 'bench').glob('bench_*'))
               if os.access(p, os.X_OK) and p.suffix == ''}
    benches.update({p.stem: [sys.executable, str(p)]
                    for p in sorted((ROOT / 'tests/bench').glob('bench_*.py'))})
    if wanted:
        benches = {name: argv for name, argv in benches.items() if name in ('bench_' + wanted, wanted)}
    return benches


def parse_line(line, version):
    result = json.loads(line)
    missing = [m for m in MEMBERS if m not in result]
    if missing:
        raise ValueError('lacks ' + ', '.join(missing))
    result['version'] = version
    return json.dumps(result)


def run_bench(name, argv, args, env, out):
    try:
        proc = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        print(f'{name}: no end after {TIMEOUT_S} s', file=sys.stderr)
        return False
    lines = proc.stdout.decode('utf-8', 'replace').splitlines()
    ok = proc.returncode == 0 and lines
    if not ok:
        print(f'{name}: exit code {proc.returncode}, {len(lines)} lines', file=sys.stderr)
    for line in lines:
        try:
            text = parse_line(line, args.version)
        except ValueError as error:
            print(f'{name}: not a measurement ({error}): {line}', file=sys.stderr)
            ok = False
            continue
        print(text, flush=True)
        if out:
            print(text, file=out, flush=True)
    return ok


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--build', required=True)
    parser.add_argument('--version', required=True)
    parser.add_argument('--out')
    parser.add_argument('bench', nargs='?')
    args = parser.parse_args()
    build = Path(args.build).resolve()
    env = {**os.environ, 'KADMSG_BUILD': str(build), 'KADMSG': str(build / 'kadmsg'),
           'KADMSG_LOAD': str(build / 'kadmsg-load')}
    benches = find_benches(build, args.bench)
    if not benches:
        print(f'no bench {args.bench or "at all"}', file=sys.stderr)
        return 1
    out = open(args.out, 'w') if args.out else None
    results = [run_bench(name, argv, args, env, out) for name, argv in benches.items()]
    return 0 if all(results) else 1


if __name__ == '__main__':
    sys.exit(main())
