"""The recorded runs of upstream's HTTP tools (tests/vectors/apps.json, dmsg_http), with our curl in their place.

The same flags, requests that mean the same, the recorded answers byte for byte, the same files and bodies; failures
fail, with codes that say more than 1. What `http` answers to the recorded requests is in tests/unit/apps/test_http.c.
"""
import contextlib
import json
from pathlib import Path

import pytest
from local import listening

RUNS = json.loads((Path(__file__).resolve().parents[1] / 'vectors/apps.json').read_text())['dmsg_http']
RECORDED_PK = '0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798'
UNKNOWN_PK = '03acd484e2f0c7f65309ad178a9f559abde09796974c57e714c35f110dfc27ccbe'
ANSWERED = sorted(name for name, run in RUNS.items() if 'wire' in run)
# Upstream: exit code 1 for all of them.
FAILING = {'dmsgget_bad_pk': 3, 'dmsgget_bad_port': 3, 'dmsgget_closed_port': 7, 'dmsgget_existing_output_file': 22,
           'dmsgget_no_scheme': 3, 'dmsgget_no_url': 2, 'dmsgget_two_urls': 3, 'dmsgget_unknown_pk': 6}


def test_no_run_is_left_out():
    """dmsgget_two_urls: ours takes several; those recorded are no URLs of keys."""
    servers = {'dmsghttp_server_exchanges', 'dmsghttp_not_whitelisted'}
    assert set(RUNS) == set(ANSWERED) | set(FAILING) | servers and len(ANSWERED) == 6
    assert all(RUNS[name]['exit'] == 1 for name in FAILING)


def ours(name, pk, folder):
    """Its arguments without the discovery and the program."""
    args = RUNS[name]['args'][3:]
    if name == 'dmsgpost_empty':  # there it was the program that made it a POST
        args = ['-d', '', *args]
    return [a.replace('<dir>', str(folder)).replace(RECORDED_PK, pk) for a in args]


def parsed(request):
    """What of a request must be the same: the line, the body, and headers but those with a name of the program."""
    head, _, body = request.partition('\r\n\r\n')
    line, *lines = head.split('\r\n')
    headers = dict(h.split(': ', 1) for h in lines)
    return line, {k.lower(): v for k, v in headers.items() if k not in ('User-Agent', 'Accept')}, body


@pytest.mark.parametrize('name', ANSWERED)
def test_recorded_answers(net, run, name):
    _, a, b, _ = net
    wire, seen = RUNS[name]['wire'], []
    want = parsed(wire['request_text'].replace(RECORDED_PK, b.pk))

    def answer(conn):
        request = b''
        while b'\r\n\r\n' not in request or parsed(request.decode())[2] != want[2]:
            piece = conn.recv(4096)
            request += piece
            if not piece:
                break
        seen.append(request.decode())
        conn.sendall(bytes.fromhex(wire['response_hex']))

    url = RUNS[name]['args'][-1]
    dport = url.split('/')[2].partition(':')[2] or '80'
    with listening(answer) as port:
        srv = run(b, 'web', 'srv', '-p', port, '-d', dport)
        out = a.cli('curl', *ours(name, b.pk, a.dir)).text
        srv.stop()
    assert parsed(seen[0]) == want
    agent = RUNS[name]['args'][RUNS[name]['args'].index('-a') + 1] if '-a' in RUNS[name]['args'] else 'kadmsg-curl/'
    assert f'\r\nUser-Agent: {agent}' in seen[0]  # upstream's never arrives
    body = wire['response_text'].partition('\r\n\r\n')[2]
    if '-o' in RUNS[name]['args']:
        got = a.dir / 'f1'
        assert got.read_text() == RUNS[name]['file'] == body and out == ''
        got.unlink()
    elif 'chunked' in wire['response_text']:
        assert out + '\n' == RUNS[name]['stdout']  # which ends every output with one more line feed
    else:
        assert out == body


@pytest.mark.parametrize('name', sorted(FAILING))
def test_recorded_failures(net, name):
    _, a, b, _ = net
    with contextlib.suppress(FileNotFoundError):
        (a.dir / 'f1').unlink()
    if name == 'dmsgget_existing_output_file':
        (a.dir / 'f1').write_text('kept')
    assert UNKNOWN_PK not in (a.pk, b.pk)
    result = a.cli('curl', *ours(name, b.pk, a.dir), code=FAILING[name])
    assert result.err and result.out == b''
    assert not any((a.dir / f).exists() for f in ('f5', 'f6', 'f7'))
    if name == 'dmsgget_existing_output_file':
        assert (a.dir / 'f1').read_text() == 'kept'
