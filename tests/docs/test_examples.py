"""The code that the README and the page on extending show runs as printed."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import pushforward as pf
from pushforward.cli import main
from pushforward.registry import _CLASSES

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.S)


FORK = """
import os, sys
from importlib.machinery import PathFinder

found = PathFinder.find_spec  # pandas is no dependency, and a reader of the README may not have it
PathFinder.find_spec = lambda name, *others: None if name == "pandas" else found(name, *others)
import torch, pushforward
for block in sys.argv[1:]:
    child = os.fork()  # each block starts with nothing but these imports
    if not child:
        exec(block, {"__name__": "__main__"})
        sys.stdout.flush()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print("end of a block", status, flush=True)
"""


@pytest.fixture(scope="module")
def readme(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], str]:
    """What each block of the README printed, and then its exit status; and what all of them wrote to stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK, *blocks("README.md")], cwd=tmp_path_factory.mktemp("readme"),
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return re.findall(r"(.*?end of a block \d+)\n", done.stdout, flags=re.S), done.stderr


@pytest.mark.parametrize("index", range(len(blocks("README.md"))))
def test_readme_block_runs(index: int, readme: tuple[list[str], str]) -> None:
    printed, errors = readme
    assert len(printed) == len(blocks("README.md")), errors
    assert printed[index].endswith("end of a block 0"), errors
    shown = re.findall(r"```python\n.*?```(?:\n\n```text\n(.*?)```)?", (ROOT / "README.md").read_text(), flags=re.S)
    assert printed[index].removesuffix("end of a block 0").rstrip() == shown[index].rstrip()


def test_the_first_page_needs_only_the_dependencies() -> None:
    assert not re.search("pandas|polars|onnx", "\n".join(blocks("docs/start/first.md")))


def test_readme_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    import numpy as np

    rows = np.random.default_rng(0).normal(size=(300, 2))
    for name in ("train.csv", "new.csv"):
        np.savetxt(tmp_path / name, rows, delimiter=",", header="a,b", comments="")
    commands = [
        line
        for line in re.findall(r"^pushforward .*$", (ROOT / "README.md").read_text(), flags=re.M)
        if line.split()[1] not in ("demo", "serve")  # each has tests of its own
    ]
    assert len(commands) == 4
    monkeypatch.chdir(tmp_path)
    for command in commands:
        words = command.split()[1:]
        if words[0] == "fit":
            words += ["--max-steps", "20", "--quiet"]
        if words[0] == "info":  # one real process; the others call the same function in this one
            done = subprocess.run([sys.executable, "-m", "pushforward", *words], capture_output=True, text=True)
            assert done.returncode == 0, (command, done.stderr)
        else:
            assert main(words) == 0, (command, capsys.readouterr().err)
    header = (tmp_path / "new.csv").read_text().splitlines()[0]
    assert header.replace('"', "") == "a,b"  # `sample` wrote the training table's columns


@pytest.fixture
def registered() -> Iterator[None]:
    """Classes that an example registers are removed again."""
    before = set(_CLASSES)
    yield
    for name, kind in list(_CLASSES.items()):  # what the package registers when it is first imported stays
        if name not in before and not kind.__module__.startswith("pushforward."):
            del _CLASSES[name]


def example(index: int) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    exec(blocks("docs/guides/extending.md")[index], scope)
    return scope


def test_the_transform_of_the_page_is_correct(registered: None) -> None:
    cube = example(0)["Cube"](2).double()
    x = torch.randn(5, 2, dtype=torch.float64) * 4
    step = cube.encode(x)
    torch.testing.assert_close(cube.decode(step.z), x, atol=1e-9, rtol=1e-9)
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda row: cube.encode(row).z, row) for row in x])
    torch.testing.assert_close(step.contribution, torch.linalg.slogdet(jacobian)[1])


def test_the_score_of_the_page_ranks_distances(registered: None, tmp_path: Path) -> None:
    score = example(1)["DistanceToMean"]().fit(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
    found = score(torch.tensor([[1.0, 0.0], [1.0, 3.0], [5.0, 3.0]]))
    torch.testing.assert_close(found, torch.tensor([0.0, 3.0, 5.0], dtype=torch.float64))
    description, tensors = pf.io.pack(score)
    assert torch.equal(pf.io.unpack(description, tensors).mean, score.mean)


def test_the_model_of_the_page_trains_and_saves(registered: None, tmp_path: Path) -> None:
    model = example(2)["TwoCouplings"](3, hidden=(8,))
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * 5 + 2
    before = model.log_prob(x).mean()
    pf.fit(model, x, max_steps=20, seed=0, progress="silent")
    assert model.log_prob(x).mean() > before
    pf.save(model, tmp_path / "model.safetensors")
    again = pf.load(tmp_path / "model.safetensors")
    assert torch.equal(again.log_prob(x), model.log_prob(x))
    torch.testing.assert_close(again.decode(again.encode(x)), x, atol=1e-3, rtol=1e-4)


def test_the_certificate_of_the_page_holds() -> None:
    assert example(3)["certificate"].alarm.all()


@pytest.mark.slow
def test_the_inference_page_runs_and_its_results_are_reliable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the page writes a file
    scope: dict[str, Any] = {}
    for block in blocks("docs/inference.md"):
        exec(block, scope)
    assert scope["fit"].reliable
    assert scope["draws"].abs().max() < 1  # inside the prior
    assert (tmp_path / "posterior.safetensors").exists()
