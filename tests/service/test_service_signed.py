"""A service with a public key: every guard that it serves is signed with it, in the bytes that are used."""

from __future__ import annotations

import asyncio
import logging
import shutil

import httpx
import pytest
from service_helpers import NORMAL

from pushforward import io
from pushforward.cli import main
from pushforward.errors import SignatureError, StorageError
from pushforward.io.signature import signature_path
from pushforward.service import ServiceSettings
from pushforward.service.app import create_app
from pushforward.service.served import Models
from pushforward.service.server import prepare
from pushforward.service.store import Store
from pushforward.service.store.audit import verify
from pushforward.service.store.modelbook import activate, entries, register


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two private keys; the public key is beside each."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine.pem", "other.pem"):
        io.new_key(folder / name)
    return folder / "mine.pem", folder / "other.pem"


@pytest.fixture
def file(guard_file, tmp_path):
    return shutil.copy(guard_file, tmp_path / "orders.safetensors")


def settings(file, public_key=None, **options) -> ServiceSettings:
    store = f"sqlite:///{file.parent / 's.sqlite'}"
    return ServiceSettings(
        (("orders", str(file)),), store=store, public_key=public_key and f"{public_key}.pub", **options
    )


def loaded(store: Store) -> dict[str, bool]:
    """The loaded versions, and whether each is active."""
    with store.read() as connection:
        return {entry.version: entry.active for entry in entries(connection) if entry.loaded}


@pytest.mark.parametrize("by", ["option", "environment"])
def test_serve_refuses_a_file_that_is_not_signed_as_score_does(file, keys, monkeypatch, capsys, by):
    monkeypatch.chdir(file.parent)
    arguments = ["serve", file.name, "--port", "0"]
    if by == "option":
        arguments += ["--public-key", f"{keys[0]}.pub"]
    else:
        monkeypatch.setenv("PUSHFORWARD_PUBLIC_KEY", f"{keys[0]}.pub")
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: pytest.fail("it serves"))
    assert main(arguments) == 1
    assert "orders.safetensors is not signed: there is no orders.safetensors.sig" in capsys.readouterr().err
    io.sign(file, keys[1])
    assert main(arguments) == 1
    assert "signed with another key" in capsys.readouterr().err
    assert not (file.parent / "pushforward-events.sqlite").exists()


def test_a_signed_guard_is_served_and_the_load_route_refuses_others(file, keys, other_guard_file, caplog):
    io.sign(file, keys[0])
    chosen = settings(file, keys[0], durability="fast")
    prepare(chosen)
    caplog.set_level(logging.INFO, "pushforward.service")

    async def body():
        gate = create_app(chosen)
        await gate.app.state.service.start()
        try:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://localhost") as client:

                async def load() -> httpx.Response:
                    return await client.post("/v2/repository/models/orders/load")

                assert (await client.post("/score", json=[NORMAL])).json()["model_version"] == "1"
                shutil.copy(other_guard_file, file)  # with the signature of the file before
                answer = await load()
                assert (answer.status_code, "changed after it was signed" in answer.json()["error"]) == (409, True)
                signature_path(file).unlink()
                answer = await load()
                assert (answer.status_code, "is not signed" in answer.json()["error"]) == (409, True)
                assert (await client.post("/score", json=[NORMAL])).json()["model_version"] == "1"
                io.sign(file, keys[0])
                assert (await load()).json()["version"] == "2"
                assert (await client.post("/score", json=[NORMAL])).json()["model_version"] == "2"
                assert (await client.post("/v2/repository/models/orders/versions/2/unload")).status_code == 409
                path = "/v2/repository/models/orders/versions/1"
                assert (await client.post(f"{path}/activate")).status_code == 200
                assert (await client.post("/v2/repository/models/orders/versions/2/unload")).status_code == 200
        finally:
            await gate.app.state.service.stop()

    asyncio.run(body())
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    starts = [line.partition(" (SHA")[0].partition(": orders")[0] for line in lines]
    refused = f"model orders: its file was refused: {file}"
    assert [line[: len(refused)] if line.startswith(refused) else line for line in starts] == [
        "model orders, version 1: loaded",
        "model orders, version 1: activated",
        refused,
        refused,
        "model orders, version 2: loaded",
        "model orders, version 2: activated",
        lines[6],
        "model orders, version 1: activated",
        "model orders, version 2: unloaded",
    ]
    assert lines[6].startswith("model orders: not unloaded: version 2 of 'orders' answers requests")


def test_what_was_served_without_a_key_is_not_served_with_one(file, keys, other_guard_file):
    prepare(settings(file))
    shutil.copy(other_guard_file, file)
    prepare(settings(file))
    store = Store(settings(file).store)
    assert activate(store, "orders", "1")  # a choice that survives a restart
    io.sign(file, keys[0])
    prepare(settings(file, keys[0]))
    assert loaded(store) == {"2": True}
    models = Models(store, ["orders"], 100, f"{keys[0]}.pub")
    assert models.refresh()
    assert [model.version for model in models.active()] == ["2"]
    prepare(settings(file))  # without a key all is as it was
    assert loaded(store) == {"2": True}
    assert verify(store).valid
    store.close()


def test_each_process_verifies_the_copy_that_it_loads(file, keys):
    io.sign(file, keys[0])
    prepare(settings(file, keys[0]))
    store = Store(settings(file).store)
    with pytest.raises(
        SignatureError, match=r"version 1 of 'orders' in the store is not signed with the key of .*other"
    ):
        Models(store, ["orders"], 100, f"{keys[1]}.pub").refresh()
    with store.write() as connection:
        store.put(connection, "signatures", {})
    with pytest.raises(SignatureError, match="came into the store without a signature"):
        Models(store, ["orders"], 100, f"{keys[0]}.pub").refresh()
    assert Models(store, ["orders"], 100).refresh()
    store.close()


def test_another_key_needs_another_signature(file, keys):
    io.sign(file, keys[0])
    prepare(settings(file, keys[0]))
    with pytest.raises(SignatureError, match="another key"):
        prepare(settings(file, keys[1]))
    io.sign(file, keys[1])
    prepare(settings(file, keys[1]))
    store = Store(settings(file).store)
    assert loaded(store) == {"1": True}
    assert Models(store, ["orders"], 100, f"{keys[1]}.pub").refresh()
    with pytest.raises(StorageError):
        register(store, "orders", file, public_key=str(file.parent / "absent.pub"))
    store.close()
