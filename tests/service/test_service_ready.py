"""Whether a service is ready: one answer on every route, back without a request when the store is, and for HEAD too."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from service_helpers import NORMAL, limit_pages
from sqlalchemy.event import listen

from pushforward.service import ServiceSettings
from pushforward.service.app import create_app
from pushforward.service.server import prepare
from pushforward.service.store.modelbook import register, slowest_worker

READY = ("/readyz", "/v2/health/ready")
PROBES = (*READY, "/livez", "/ping", "/v2/health/live", "/v2/models/orders/ready", "/v2/models/orders/versions/1/ready")


@pytest.mark.parametrize(("durability", "during"), [("strict", 503), ("fast", 200)])
def test_a_store_that_failed_for_a_while_is_ready_again_without_a_request(guard_file, tmp_path, durability, during):
    settings = ServiceSettings(
        (("orders", str(guard_file)),), store=f"sqlite:///{tmp_path / 's.sqlite'}", durability=durability
    )
    prepare(settings)

    async def body():
        gate = create_app(settings)
        service = gate.app.state.service
        await service.start()
        try:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://localhost") as client:

                async def statuses() -> set[int]:
                    return {(await client.get(path)).status_code for path in READY}

                assert await statuses() == {200}
                limit_pages(service.store, 1)  # a request is stored in parts, none of which may fit
                answer = await client.post("/score", json=[NORMAL] * 1000)
                assert answer.status_code == during
                end = time.monotonic() + 15  # until "fast" tries to write
                while service.store_problem is None and time.monotonic() < end:
                    await asyncio.sleep(0.1)
                await asyncio.sleep(3)  # "strict" has tried whether it can
                assert "full" in service.store_problem
                assert await statuses() == {during}
                limit_pages(service.store, None)
                end = time.monotonic() + 15
                while service.store_problem is not None and time.monotonic() < end:
                    await asyncio.sleep(0.1)
                assert service.store_problem is None
                assert await statuses() == {200}
        finally:
            await service.stop()

    asyncio.run(body())


def test_a_process_that_starts_during_a_change_has_the_new_models(guard_file, other_guard_file, tmp_path, monkeypatch):
    settings = ServiceSettings((("orders", str(guard_file)),), store=f"sqlite:///{tmp_path / 's.sqlite'}")
    prepare(settings)

    async def body():
        service = create_app(settings).app.state.service
        refresh, slowest = service.models.refresh, []

        def refresh_and_change() -> bool:
            found = refresh()
            monkeypatch.setattr(service.models, "refresh", refresh)
            register(service.store, "orders", other_guard_file)
            with service.store.read() as connection:
                slowest.append(slowest_worker(connection))
            return found

        monkeypatch.setattr(service.models, "refresh", refresh_and_change)
        await service.start()
        try:
            assert slowest == [-1]  # so whoever made the change waits for this process
            assert [model.version for model in service.models.active()] == ["2"]
        finally:
            await service.stop()

    asyncio.run(body())


def test_probes_may_ask_with_head(server):
    for path in (*PROBES, "/metrics"):
        found = server.client.head(path)
        assert (found.status_code, found.content) == (200, b""), path
    assert server.client.head("/v2/models/absent/ready").status_code == 404


def test_every_operation_of_the_description_has_its_own_id(server):
    paths = server.client.get("/openapi.json").json()["paths"]
    ids = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(ids) == len(set(ids)) > 20
    assert not any("head" in methods for methods in paths.values())


def test_a_store_that_does_not_answer_delays_no_score(guard_file, tmp_path):
    settings = ServiceSettings((("orders", str(guard_file)),), store=f"sqlite:///{tmp_path / 's.sqlite'}")
    prepare(settings)

    async def body():
        gate = create_app(settings)
        service = gate.app.state.service
        await service.start()
        try:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://localhost") as client:
                assert (await client.post("/score", json=[NORMAL])).status_code == 200
                listen(service.store.engine, "checkout", lambda *_: time.sleep(2))
                start = time.monotonic()
                slow = [asyncio.create_task(client.get(f"/events/{'0' * 32}")) for _ in range(2)]
                slow.append(asyncio.create_task(client.post("/v2/repository/index")))
                await asyncio.sleep(0.1)
                assert (await client.post("/score", json=[NORMAL])).status_code == 200
                assert time.monotonic() - start < 1.8
                assert [answer.status_code for answer in await asyncio.gather(*slow)] == [404, 404, 200]
                # Also a large body, which is read in a thread, while every thread of the event loop waits for the store.
                waiting = [asyncio.create_task(asyncio.to_thread(time.sleep, 4)) for _ in range(40)]
                await asyncio.sleep(0.1)
                async with asyncio.timeout(3.5):
                    answer = await client.post("/score", json=[NORMAL] * 2000)
                assert answer.status_code == 200
                for task in waiting:
                    task.cancel()
        finally:
            await service.stop()

    asyncio.run(body())
