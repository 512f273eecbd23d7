"""Limits on the time and the size of headers, on every request of a connection."""

from __future__ import annotations

import asyncio
import time

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed (pip install 'pushforward[serve]').")

import uvicorn
from uvicorn.server import ServerState

from pushforward.service import server as module

GOOD = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
BEGUN = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


async def answer(scope, receive, send):
    """An application that reads the body of a POST and refuses without reading what is sent to /refuse."""
    while scope["path"] == "/" and (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def talk(conversation):
    """What a conversation with a server finds: a coroutine that gets a reader and a writer."""
    config = uvicorn.Config(answer, http=module.Protocol, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    listening = await asyncio.get_running_loop().create_server(
        lambda: module.Protocol(config, state, {}), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    try:
        return await asyncio.wait_for(conversation(reader, writer), 30)
    finally:
        writer.close()
        listening.close()


async def flood(reader, writer, piece, begin, most=50 * 2**20):
    """Send pieces until the server closes the connection; the bytes that it took, and its answer."""
    writer.write(begin)
    sent = 0
    answered = asyncio.create_task(reader.read())
    while not answered.done() and sent < most:
        try:
            writer.write(piece)
            await writer.drain()
        except ConnectionError:
            break
        sent += len(piece)
        await asyncio.sleep(0)
    try:
        return sent, await asyncio.wait_for(answered, 5)
    except ConnectionError:
        return sent, b""  # reset, because more was on its way when it closed


async def one(reader, writer):
    """One request that is answered, so that another one can follow."""
    writer.write(GOOD)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert await reader.readexactly(2) == b"ok"


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (BEGUN, b"X-A: " + b"a" * 1000 + b"\r\n"),
        (BEGUN + b"X-A: ", b"a" * 4096),
        (b"GET /", b"a" * 4096),
        (CHUNKED + b"1;", b"a" * 4096),
        (CHUNKED + b"0\r\nX-A: ", b"a" * 4096),
        (CHUNKED + b"0\r\n", b"X-A: b\r\n" * 100),
    ],
    ids=["lines", "line", "address", "extension of a chunk", "header after a body", "headers after a body"],
)
def test_headers_without_an_end_are_refused(first, begin, piece):
    async def conversation(reader, writer):
        if not first:
            await one(reader, writer)
        return await flood(reader, writer, piece, begin)

    sent, _ = asyncio.run(talk(conversation))
    assert sent < 20 * 2**20  # what the buffers of two sockets hold, too


def test_the_answer_says_what_is_too_large():
    async def conversation(reader, writer):
        await one(reader, writer)
        writer.write(BEGUN + b"X-A: " + b"a" * 1000)
        await asyncio.sleep(0.1)
        writer.write(b"a" * 70_000)
        return await reader.read()

    found = asyncio.run(talk(conversation))
    assert found.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"64 KiB" in found


def test_too_many_headers_are_refused():
    async def conversation(reader, writer):
        writer.write(BEGUN + b"a: b\r\n" * 300 + b"\r\n")
        return await reader.read()

    assert asyncio.run(talk(conversation)).startswith(b"HTTP/1.1 400")


def test_large_bodies_and_many_requests_are_no_headers():
    async def conversation(reader, writer):
        for body in (b"x" * 2**20, b"y" * 70_000):
            writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(2) == b"ok"
        writer.write(CHUNKED + b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n")
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.write(GOOD * 3000)  # in one part, and more than 64 KiB
        return [(await reader.readuntil(b"ok"))[:12] for _ in range(3000)]

    assert set(asyncio.run(talk(conversation))) == {b"HTTP/1.1 200"}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("piece", [b"GET / HTTP/1.1\r\nHost: loc", b"\r\n"])
def test_slow_headers_end_the_connection(monkeypatch, first, piece):
    monkeypatch.setattr(module, "_HEADER_SECONDS", 0.3)

    async def conversation(reader, writer):
        if not first:
            await one(reader, writer)
        begin = time.monotonic()
        writer.write(piece)
        rest = await reader.read()
        return rest, time.monotonic() - begin

    rest, seconds = asyncio.run(talk(conversation))
    assert rest == b""
    assert seconds < 5


def test_a_body_that_nobody_reads_ends_the_connection(monkeypatch):
    monkeypatch.setattr(module, "_HEADER_SECONDS", 0.3)

    async def conversation(reader, writer):
        writer.write(b"POST /refuse HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        await reader.readuntil(b"ok")
        for _ in range(100):  # a byte now and then
            try:
                writer.write(b"x")
                await writer.drain()
            except ConnectionError:
                return True
            await asyncio.sleep(0.05)
            if reader.at_eof():
                return True
        return False

    assert asyncio.run(talk(conversation))


def test_the_time_of_headers_does_not_end_a_long_answer(monkeypatch):
    monkeypatch.setattr(module, "_HEADER_SECONDS", 0.2)

    async def conversation(reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            await asyncio.sleep(0.05)
            writer.write(b"x")
        head = await reader.readuntil(b"ok")
        await asyncio.sleep(0.5)  # a kept connection may rest
        await one(reader, writer)
        return head

    assert asyncio.run(talk(conversation)).startswith(b"HTTP/1.1 200")
