"""A TCP proxy that makes networks bad: it delays, throttles, stalls, splits and cuts what goes through it.

It runs on a thread of its own. `target` (host, port) and `fault` may be changed at any time and hold for what comes
from then on; a stall keeps what is under way, a cut closes every connection. Limits: 64 KiB a direction.

    proxy = BadProxy(random.Random(seed), ('127.0.0.1', 8081))
    proxy.fault = Fault(delay_s=0.05, split=7)
    proxy.cut()
    proxy.close()
"""
import asyncio
import dataclasses
import threading

CHUNK = 65536


@dataclasses.dataclass(frozen=True)
class Fault:
    delay_s: float = 0.0   # of every piece
    rate: int = 0          # bytes a second, 0 = any
    split: int = 0         # writes of at most so many bytes, 0 = as they come
    stalled: bool = False  # nothing moves


GOOD = Fault()


class BadProxy:
    def __init__(self, rng, target):
        self.rng, self.target, self.fault = rng, target, GOOD
        self.pairs, self.port, self.accepted = set(), None, 0
        self.loop, self.ready = asyncio.new_event_loop(), threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.ready.wait(20)

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.server = self.loop.run_until_complete(asyncio.start_server(self._serve, '127.0.0.1', 0))
        self.port = self.server.sockets[0].getsockname()[1]
        self.ready.set()
        self.loop.run_forever()
        self.server.close()
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.close()

    async def _copy(self, reader, writer):
        try:
            while data := await reader.read(CHUNK):
                fault = self.fault
                step = fault.split or len(data)
                for at in range(0, len(data), step):
                    while self.fault.stalled:
                        await asyncio.sleep(0.05)
                    pause = fault.delay_s + (step / fault.rate if fault.rate else 0)
                    if pause > 0:
                        await asyncio.sleep(pause)
                    elif fault.split:
                        await asyncio.sleep(0)
                    writer.write(data[at:at + step])
                    await writer.drain()
            writer.write_eof()
        except (OSError, RuntimeError):
            writer.transport.abort()

    async def _serve(self, reader, writer):
        try:
            other_reader, other = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        self.accepted += 1
        pair = (writer, other)
        self.pairs.add(pair)
        try:
            await asyncio.gather(self._copy(reader, other), self._copy(other_reader, writer))
        except asyncio.CancelledError:
            pass
        finally:
            self.pairs.discard(pair)
            for w in pair:
                w.transport.abort()

    def cut(self):
        """Close every connection, as a broken cable does at last: by reset."""
        def work():
            for pair in list(self.pairs):
                for w in pair:
                    w.transport.abort()
        self.loop.call_soon_threadsafe(work)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)
