"""A long cable: a relay between a client and a server that hands every byte on a little later."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

Chunk = tuple[float, bytes]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Hand on what one side sends, and its end, after the delay."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[Chunk] = asyncio.Queue()

    async def arrive() -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                break
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    arriving = asyncio.ensure_future(arrive())
    try:
        while data := await reader.read(2**16):
            under_way.put_nowait((loop.time() + delay, data))
        under_way.put_nowait((loop.time() + delay, b""))
        await arriving
    finally:
        arriving.cancel()


async def _join(near: tuple[asyncio.StreamReader, asyncio.StreamWriter], port: int, delay: float) -> None:
    reader, writer = near
    try:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        writer.transport.abort()
        return
    pumps = [_pump(reader, far_writer, delay), _pump(far_reader, writer, delay)]
    try:
        await asyncio.gather(*pumps)
        writer.close()
        far_writer.close()
    except (OSError, RuntimeError):  # one side has reset its connection, and so the other side gets one
        await asyncio.sleep(delay)
    finally:
        writer.transport.abort()
        far_writer.transport.abort()


@contextlib.contextmanager
def cable(port: int, target: int, delay: float) -> Iterator[None]:
    """Listen at a port while the block runs; what arrives reaches the target after so many seconds."""
    ready, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def live() -> None:
        joined: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(_join((reader, writer), target, delay))
            joined.add(task)
            task.add_done_callback(joined.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", port)
        ready.set()
        await over.wait()
        server.close()
        for task in list(joined):
            task.cancel()
        await asyncio.gather(*joined, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=[live()])
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()
