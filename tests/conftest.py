"""Fixtures of every test, and how `pytest -n` divides the tests."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch


def seed() -> None:
    """Seed the generators that weights and an estimator without ``random_state`` use."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> None:
    """What several tests share does not depend on the tests before it."""
    if fixturedef.scope != "function":
        seed()


@pytest.fixture(autouse=True)
def same_start() -> Iterator[None]:
    """Weights, draws and speed of a test do not depend on earlier tests in the same process."""
    seed()
    threads = torch.get_num_threads()
    yield
    if torch.get_num_threads() != threads:  # a benchmark that was run by a test sets it
        torch.set_num_threads(threads)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the service begin first, because they mostly wait while others compute."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/service/"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One worker for all tests of the service, which share servers and mostly wait; the others file by file."""
    from xdist.scheduler import LoadFileScheduling

    class ServiceTogether(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/service" if nodeid.startswith("tests/service/") else super()._split_scope(nodeid)

    return ServiceTogether(config, log) if config.getvalue("dist") == "loadfile" else None
