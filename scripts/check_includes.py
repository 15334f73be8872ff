#!/usr/bin/env python3
"""Checks the dependency rule of docs/architecture.md; run by `make lint`.

* A folder includes only itself and folders to its left; project headers are written with their
  folder and exist.
* Some system headers belong to some places only: the event library to the drivers and above, the
  database to store/, the HTTP and Redis libraries to compat-http/ (the HTTP ones also to apps/).
* The cores in transport/ and kademlia/ see no clock, socket, thread or random source, and no
  floating point decides anything in kademlia/.
Prints file:line: reason; exit 1 if there is anything. --self-test checks the checker.
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

ORDER = ['base', 'transport', 'kademlia', 'store', 'compat-http', 'apps', 'node']
MAY_USE = {folder: set(ORDER[:i + 1]) for i, folder in enumerate(ORDER)}
MAY_USE['simulator'] = {'base', 'kademlia', 'store', 'simulator'}
MAY_USE['node'].add('simulator')  # the command `kadmsg sim`

# What talks to the machine inside transport/: event drivers and the bridge between stream and fd.
DRIVER = re.compile(r'^transport/(drive_|fdbridge)')
UPPER = re.compile(r'^(compat-http|apps|node)/')
LIBRARIES = [
    # (system header, files that may include it, what to say)
    (r'event2?(/|\.h$)', lambda f: DRIVER.match(f) or UPPER.match(f),
     'libevent belongs to transport/drive_*, compat-http/, apps/ and node/'),
    (r'lmdb\.h$', lambda f: f.startswith('store/'), 'LMDB belongs to store/'),
    (r'microhttpd\.h$', lambda f: re.match(r'(compat-http|apps)/', f),
     'libmicrohttpd belongs to compat-http/ and apps/'),
    (r'hiredis/', lambda f: f.startswith('compat-http/'), 'hiredis belongs to compat-http/'),
    (r'curl/', lambda f: re.match(r'(compat-http|apps)/', f),
     'libcurl belongs to compat-http/ and apps/'),
]
CORE = re.compile(r'^(transport|kademlia)/')
CORE_HEADERS = re.compile(r'(sys/(socket|epoll|poll|select|random|timerfd|eventfd)|poll|netdb'
                          r'|netinet/.*|arpa/inet|unistd|pthread|threads)\.h$')
CORE_CALLS = re.compile(r'(?<![\w.>])(time|gettimeofday|clock_gettime|rand|random|drand48|getrandom'
                        r'|randombytes_(?:buf|random|uniform)|usleep|nanosleep)\s*\(')
FLOATS = re.compile(r'\b(float|double)\b')

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')


def strip(text):
    """The text without comments and string contents, its lines kept."""
    def blank(match):
        token = match.group(0)
        return token if token[0] == '"' and '#' in token else re.sub(r'[^\n]', ' ', token)
    return re.sub(r'/\*.*?\*/|//[^\n]*|(?<!include )"(?:\\.|[^"\\\n])*"', blank, text, flags=re.S)


def check_include(name, quote, header, exists):
    folder = name.split('/')[0]
    if quote == '"':
        target = header.split('/')[0]
        if '/' not in header or '..' in header:
            return f'"{header}" is written without its folder'
        if folder == 'tests':
            return None if exists(header) else f'"{header}" does not exist'
        if target not in MAY_USE[folder]:
            return f'{folder}/ must not include "{header}"'
        if folder == 'simulator' and target == 'store' and not re.match(r'store/(store_)?mem', header):
            return 'simulator/ uses only the memory backend of store/'
        return None if exists(header) else f'"{header}" does not exist'
    if folder == 'tests':
        return None
    for pattern, allowed, reason in LIBRARIES:
        if re.match(pattern, header) and not allowed(name):
            return reason
    if CORE.match(name) and not DRIVER.match(name) and CORE_HEADERS.match(header):
        return f'<{header}> in a core without I/O'
    return None


def check_text(name, text, exists):
    """[(line number, reason)] of one file."""
    found = []
    code = strip(text)
    for number, line in enumerate(code.split('\n'), 1):
        include = INCLUDE.match(line)
        if include:
            reason = check_include(name, include[1], include[2], exists)
        elif not CORE.match(name) or DRIVER.match(name):
            reason = None
        elif CORE_CALLS.search(line):
            reason = f'{CORE_CALLS.search(line)[1]}() in a core without I/O'
        elif name.startswith('kademlia/') and FLOATS.search(line):
            reason = 'floating point in kademlia/'
        else:
            reason = None
        if reason:
            found.append((number, reason))
    return found


def self_test():
    good = [
        ('base/a.c', '#include "base/a.h"\n#include <time.h>\nint x = time(0);'),
        ('transport/drive_tcp.c', '#include <event2/event.h>\n#include <sys/socket.h>'),
        ('transport/yamux.c', '/* time(0) */ int f(void) { return s->time(1) + "rand("[0]; }'),
        ('kademlia/store_if.h', '#include "transport/entry.h"\n// double'),
        ('store/lmdb.c', '#include <lmdb.h>\n#include "kademlia/store_if.h"'),
        ('compat-http/a.c', '#include <microhttpd.h>\n#include <curl/curl.h>'),
        ('apps/a.c', '#include <curl/curl.h>\n#include "compat-http/b.h"'),
        ('node/main.c', '#include "simulator/run.h"\n#include "apps/nc.h"'),
        ('simulator/net.c', '#include "kademlia/engine.h"\n#include "store/mem.h"'),
        ('tests/unit/base/test_a.c', '#include "node/config.h"\n#include <lmdb.h>'),
    ]
    bad = [
        ('base/a.c', '#include "transport/a.h"'),
        ('base/a.c', '#include "a.h"'),
        ('base/a.c', '#include "base/../node/a.h"'),
        ('base/a.c', '#include "base/missing.h"'),
        ('base/a.c', '#include <event2/event.h>'),
        ('transport/yamux.c', '#include <event2/buffer.h>'),
        ('transport/yamux.c', '#include <event.h>'),
        ('transport/yamux.c', '#include <sys/socket.h>'),
        ('transport/yamux.c', 'uint64_t t = time(NULL);'),
        ('kademlia/a.c', '#include "store/a.h"'),
        ('kademlia/a.c', 'double d;'),
        ('kademlia/a.c', '    randombytes_buf(b, 4);'),
        ('compat-http/a.c', '#include <lmdb.h>'),
        ('node/a.c', '#include <microhttpd.h>'),
        ('node/a.c', '#include <hiredis/hiredis.h>'),
        ('node/a.c', '#include <curl/curl.h>'),
        ('simulator/a.c', '#include "transport/a.h"'),
        ('simulator/a.c', '#include "store/lmdb.h"'),
        ('tests/unit/a.c', '#include "base/missing.h"'),
    ]
    exists = lambda header: 'missing' not in header
    for name, text in good:
        assert not check_text(name, text, exists), (name, text, check_text(name, text, exists))
    for name, text in bad:
        assert check_text(name, text, exists), (name, text)
        assert check_text(name, '/* one\n two */\n' + text, exists)[0][0] == 3, (name, text)


def main():
    if sys.argv[1:] == ['--self-test']:
        self_test()
        return 0
    failed = False
    for folder in [*ORDER, 'simulator', 'tests']:
        for path in sorted((ROOT / folder).rglob('*.[ch]')):
            name = path.relative_to(ROOT).as_posix()
            for number, reason in check_text(name, path.read_text(), lambda h: (ROOT / h).is_file()):
                print(f'{name}:{number}: {reason}')
                failed = True
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
