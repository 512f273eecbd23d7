"""The log of requests: one line each where it is asked for, without content, and no line of a client's own making."""

from __future__ import annotations

import asyncio
import logging
import re

import httpx
import pytest
from service_helpers import NORMAL

from pushforward.service import ServiceSettings
from pushforward.service.app import create_app
from pushforward.service.server import prepare

TOKEN = "read-" + "r" * 40


def lines_of(guard_file, tmp_path, caplog, **options) -> list[str]:
    """What the log has after a few requests."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"read:{TOKEN}\n")
    tokens.chmod(0o600)
    store = f"sqlite:///{tmp_path / 's.sqlite'}"
    settings = ServiceSettings((("orders", str(guard_file)),), store=store, token_file=str(tokens), **options)
    prepare(settings)
    caplog.set_level(logging.INFO, "pushforward.service")

    async def body():
        gate = create_app(settings)
        await gate.app.state.service.start()
        try:
            transport = httpx.ASGITransport(gate, client=("192.0.2.7", 1234))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                headers = {"authorization": f"Bearer {TOKEN}"}
                secret = {"name": "secret-7781"}
                assert (await client.post("/score", json=[NORMAL], headers=headers, params=secret)).status_code == 200
                assert (await client.post("/score", json=[NORMAL])).status_code == 401
                assert (await client.get("/livez")).status_code == 200
                await client.get("/nothing%0A2026-01-01 INFO forged", headers=headers)
        finally:
            await gate.app.state.service.stop()

    asyncio.run(body())
    return [record.getMessage() for record in caplog.records if record.name.endswith(".access")]


def test_each_request_is_a_line_without_content(guard_file, tmp_path, caplog):
    lines = lines_of(guard_file, tmp_path, caplog, access_log=True)
    expected = [
        r"192\.0\.2\.7 POST /score 200 \d+\.\dms read",
        r"192\.0\.2\.7 POST /score 401 \d+\.\dms -",
        r"192\.0\.2\.7 GET /livez 200 \d+\.\dms -",
        r"192\.0\.2\.7 GET /nothing%0A2026-01-01%20INFO%20forged 404 \d+\.\dms read",
    ]
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "secret-7781" not in text
    assert TOKEN not in text


@pytest.mark.parametrize("options", [{}, {"access_log": False}])
def test_without_the_option_there_is_none(guard_file, tmp_path, caplog, options):
    assert lines_of(guard_file, tmp_path, caplog, **options) == []
