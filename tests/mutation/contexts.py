"""Plugin of pytest that records which tests reach which lines, and how long each test takes.

A fixture of wider scope than a test belongs to all tests below its folder or file: its context is ``shared:PATH``.
Processes that a test starts belong to the test.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest


class Contexts:
    """Measures the lines of a process under the name of the test that runs."""

    def __init__(self, data: Path, source: str) -> None:
        self.data = data
        self.seconds: dict[str, float] = defaultdict(float)
        self.coverage = coverage.Coverage(
            data_file=str(data), data_suffix=True, source=[source], config_file=False, context=""
        )
        self.coverage.start()

    def switch(self, name: str) -> None:
        self.coverage.switch_context(name)
        os.environ["MUTATION_CONTEXT"] = name  # for processes, see `sitecustomize.py`

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest) -> Iterator[None]:
        before = os.environ.get("MUTATION_CONTEXT", "")
        if fixturedef.scope != "function":
            self.switch(f"shared:{fixturedef.baseid or request.node.nodeid.split('::')[0]}")
        result = yield
        self.switch(before)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.switch(item.nodeid)
        began = time.process_time()
        result = yield
        self.seconds[item.nodeid] += time.process_time() - began
        self.switch("")
        return result

    def pytest_unconfigure(self) -> None:
        self.coverage.stop()
        self.coverage.save()
        Path(f"{self.data}.seconds.{os.getpid()}").write_text(json.dumps(self.seconds))


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.register(Contexts(Path(os.environ["MUTATION_DATA"]), os.environ["MUTATION_SOURCE"]))
