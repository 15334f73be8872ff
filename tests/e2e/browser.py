"""A real browser, told what to do through its own debugging protocol on a pair of pipes."""
import fcntl
import json
import os
import select
import subprocess
import time

from procs import Failed

START_S = 60


class Browser:
    """Chromium without a screen, everything through one proxy; its profile lies in folder.

        with Browser(folder, 'socks5://127.0.0.1:4445') as browser:
            title = browser.look('http://friend.dmsg/', 'document.readyState == "complete" && document.title')
    """

    def __init__(self, folder, proxy):
        to_read, self.out = os.pipe()
        self.inp, to_write = os.pipe()
        self.log = folder / 'browser.log'
        self.data, self.ids = b'', 0

        def pipes():  # the browser reads from 3 and writes to 4
            a, b = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (to_read, to_write))
            os.dup2(a, 3)
            os.dup2(b, 4)

        with open(self.log, 'wb') as log:
            self.proc = subprocess.Popen(
                ['chromium', '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
                 '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-extensions',
                 '--disable-breakpad', '--password-store=basic', '--remote-debugging-pipe', f'--user-data-dir={folder}/profile',
                 f'--proxy-server={proxy}', 'about:blank'],
                env={'PATH': os.environ['PATH'], 'HOME': str(folder), 'LANG': 'C.UTF-8'}, preexec_fn=pipes, close_fds=False,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        os.close(to_read)
        os.close(to_write)

    def __enter__(self):
        try:
            target = self.ask('Target.createTarget', url='about:blank')['targetId']
            self.session = self.ask('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        os.close(self.out)  # it ends when nobody talks to it any more
        try:
            self.proc.wait(10)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()
        os.close(self.inp)

    def _message(self, deadline):
        while b'\0' not in self.data:
            ready = select.select([self.inp], [], [], max(0, deadline - time.monotonic()))[0]
            piece = os.read(self.inp, 1 << 16) if ready else b''
            if not piece:
                raise Failed(f'the browser does not answer: {self.log.read_text(errors="replace")[-3000:]}')
            self.data += piece
        line, _, self.data = self.data.partition(b'\0')
        return json.loads(line)

    def ask(self, method, session=None, timeout=START_S, **params):
        """One request of the protocol and its answer; events in between are of no interest."""
        self.ids += 1
        request = {'id': self.ids, 'method': method, 'params': params, **({'sessionId': session} if session else {})}
        os.write(self.out, json.dumps(request).encode() + b'\0')
        deadline = time.monotonic() + timeout
        while (answer := self._message(deadline)).get('id') != self.ids:
            pass
        if 'error' in answer:
            raise Failed(f'{method}: {answer["error"]}')
        return answer['result']

    def evaluate(self, expression):
        result = self.ask('Runtime.evaluate', self.session, expression=expression, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in result:
            raise Failed(f'{expression}: {result["exceptionDetails"]}')
        return result['result'].get('value')

    def look(self, url, expression, timeout=40):
        """Go to url, and the value of the expression there as soon as it is true."""
        error = self.ask('Page.navigate', self.session, url=url).get('errorText')
        if error:
            raise Failed(f'{url}: {error}')
        deadline = time.monotonic() + timeout
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                raise Failed(f'{url}: {expression} is {value!r}; {self.evaluate("document.documentElement.outerHTML")[:2000]}')
            time.sleep(0.05)
        return value
