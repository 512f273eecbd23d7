"""Every registered module is stored and read, and none builds more than its file contains."""

import copy
import inspect
import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from pushforward import io, registry

from .cases import MODULES, Case
from .test_coverage import assert_bitwise
from .tools import built


@pytest.mark.parametrize("case", MODULES, ids=str)
def test_through_a_file(case: Case, tmp_path):
    module = built(case)
    description, tensors = io.pack(module, "part.")
    io.write(tmp_path / "f", {"kind": "guard", "part": description}, tensors | {"other": torch.ones(1)})
    header, tensors = io.read(tmp_path / "f")
    again = io.unpack(header["part"], tensors, "part.")
    assert type(again) is type(module)
    assert {k: t.dtype for k, t in again.state_dict().items()} == {k: t.dtype for k, t in module.state_dict().items()}
    assert_bitwise(module, again, case)


def inflated(description: dict, size: int):
    """Copies of a description with each integer argument, and then all of them, set to ``size``."""
    spots = []

    def find(node, path):
        if isinstance(node, dict) and "class" in node:
            parameters = inspect.signature(registry.registered(node["class"])).parameters
            for key, value in node["arguments"].items():
                if key in parameters and key != "seed":
                    find(value, (*path, "arguments", key))
        elif isinstance(node, list):
            for k, value in enumerate(node[:3]):
                find(value, (*path, k))
        elif isinstance(node, int) and not isinstance(node, bool):
            spots.append(path)

    find(description, ())
    for chosen in [*([spot] for spot in spots), spots]:
        changed = copy.deepcopy(description)
        for path in chosen:
            node = changed
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = size
        yield " ".join("/".join(map(str, path[1::2])) for path in chosen), changed


def test_no_constructor_builds_more_than_its_file_contains():
    """Sizes of 60,000 in every argument, without weights, are refused fast and in little memory."""
    asked = {f"{case} {where}": d for case in MODULES
             for where, d in inflated(json.loads(json.dumps(registry.describe(built(case)))), 60_000)}  # fmt: skip
    script = """
        import json, resource, sys, time
        from pushforward import errors, io
        resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))

        def peak():  # in MiB; not ru_maxrss, which a child inherits from the process that made it
            lines = open("/proc/self/status").read().splitlines()
            return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024

        for name, description in json.load(sys.stdin).items():
            start = time.process_time()
            try: io.unpack(description, {})
            except errors.StorageError: pass
            seconds = time.process_time() - start
            print(json.dumps([name, seconds, peak()]), flush=True)
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    try:
        done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=600,
                              env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    except subprocess.TimeoutExpired as error:
        finished = (error.stdout or b"").decode().count("\n")
        pytest.fail(f"hangs on {list(asked)[finished]}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{list(asked)[len(lines)]}: {done.stderr[-2000:]}"
    assert len(lines) == len(asked) > 100
    assert max(lines, key=lambda line: line[1])[1] < 5, max(lines, key=lambda line: line[1])
    assert lines[-1][2] < 1500, next(line for line in lines if line[2] >= 1500)
