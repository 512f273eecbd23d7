"""The command of the reproductions in the hands of a first-time user: errors say what to do, and lose nothing."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from papers import headlines
from papers import reproduction as registry
from papers.__main__ import main
from papers.experiment import Experiment
from papers.headlines import HELD, Headline
from papers.reproduction import reproduction
from papers.run import reproduce
from pushforward.errors import StorageError
from pushforward.models import RealNVP


def silent(line: str) -> None:
    """Say nothing."""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A registry with one reproduction of one claim and one picture, whose size tells the budgets apart."""
    monkeypatch.setattr(registry, "_REPRODUCTIONS", {})
    claim = Headline("toy", "one", HELD, "here", ("one is",), later=("two is",), main="two is")
    monkeypatch.setattr(headlines, "HEADLINES", (claim,))
    keys: list[str] = []

    @reproduction("toy", "A toy (Nobody 2020)", data=("none",), full="no time at all")
    def run(experiment):
        found = experiment.measure("one", lambda: keys.append("one") or 1.0)
        experiment.picture("plot", experiment.figure(experiment.choose(smoke=1, quick=2, long=3, full=4), 1))
        experiment.report("one is 1", ours=f"{found:g}", confirmed=True, seeds=1)
        if experiment.budget == "long":
            experiment.report("two is 2", ours="2", confirmed=True, seeds=1)

    return keys


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.startswith("papers: ")
    assert error.count("\n") == 1
    return error


def test_an_index_without_an_ending_is_a_markdown_file_beside_the_folder_of_its_pages(made, tmp_path):
    assert main(["--all", "--out", str(tmp_path / "runs"), "--page", str(tmp_path / "docs" / "papers")]) == 0
    assert "](papers/toy.md)" in (tmp_path / "docs" / "papers.md").read_text()
    assert (tmp_path / "docs" / "papers" / "toy.md").exists()


def test_folders_that_cannot_be_written_are_refused_before_anything_is_run(made, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["toy", "--out", str(tmp_path / "file")]) == 1
    assert "give --out a folder that you may write to" in one_line(capsys)
    assert main(["toy", "--out", str(tmp_path / "runs"), "--page", str(tmp_path / "file" / "papers.md")]) == 1
    assert "give --page a file in a folder that you may write to" in one_line(capsys)
    (tmp_path / "papers.md").mkdir()
    assert main(["toy", "--out", str(tmp_path / "runs"), "--page", str(tmp_path / "papers.md")]) == 1
    assert "papers.md cannot be written" in one_line(capsys)
    assert made == []


def test_pages_that_cannot_be_written_later_keep_the_reports(made, tmp_path, capsys):
    (tmp_path / "docs" / "papers").mkdir(parents=True)
    (tmp_path / "docs" / "papers" / "toy.md").mkdir()
    assert main(["toy", "--out", str(tmp_path / "runs"), "--page", str(tmp_path / "docs" / "papers.md")]) == 1
    assert "the pages were not written, and the reports in" in one_line(capsys)
    assert (tmp_path / "runs" / "toy-quick.json").exists()


def test_pages_without_a_report_leave_no_folder(made, tmp_path, capsys):
    assert main(["--out", str(tmp_path / "runs"), "--page", str(tmp_path / "docs" / "papers.md")]) == 1
    assert "no finished report" in one_line(capsys)
    assert not (tmp_path / "docs").exists()


def test_a_verdict_is_shown_only_by_a_report_that_supports_it(made, tmp_path):
    target = tmp_path / "papers.md"
    arguments = ["toy", "--out", str(tmp_path)]
    assert main([*arguments, "--budget", "smoke", "--page", str(target)]) == 0
    for text in (target.read_text(), (tmp_path / "toy.md").read_text()):
        assert "| one | **not decided by this run**: 0 of 1 findings are confirmed" in text
        assert (
            "The published pages have 'held'. | – | `--budget smoke` |" in text
        )  # the main figure is one of long runs
    assert main([*arguments, "--page", str(target)]) == 0
    assert "| one | **held** | – | here |" in target.read_text()
    assert main([*arguments, "--budget", "long", "--page", str(target)]) == 0
    assert "| one | **held** | 2 | here |" in target.read_text()


def test_a_shorter_run_does_not_replace_the_pictures_of_a_longer_one(made, tmp_path):
    target, pictures = tmp_path / "docs" / "papers.md", {}
    for budget in ("long", "quick", "smoke"):
        out = tmp_path / budget
        assert main(["--all", "--budget", budget, "--out", str(out), "--page", str(target)]) == 0
        pictures[budget] = (out / "toy-plot.png").read_bytes()
    assert pictures["long"] != pictures["quick"]
    assert (target.with_suffix("") / "toy-plot.png").read_bytes() == pictures["long"]


@pytest.mark.parametrize("line", [b"garbage", b"\xff\xfe", b"[]", b"3", b'{"key": "two"}'])
def test_one_damaged_line_costs_one_measurement(made, tmp_path, capsys, line):
    good = json.dumps({"key": "one", "value": 9.0}).encode()
    file = tmp_path / "toy-quick.jsonl"
    file.write_bytes(good + b"\n" + line + b"\n")
    assert main(["toy", "--out", str(tmp_path)]) == 1
    assert f"line 2 of {file} is damaged" in (error := one_line(capsys))
    assert "delete this line" in error
    assert file.read_bytes() == good + b"\n" + line + b"\n"
    file.write_bytes(good + b"\n")
    assert main(["toy", "--out", str(tmp_path)]) == 0
    assert made == []


def test_the_last_line_of_all_names_what_was_not_run(made, tmp_path, capsys):
    (tmp_path / "toy-quick.jsonl").write_text("garbage\n")

    @reproduction("other", "Another toy (Nobody 2020)", full="no time at all")
    def run(experiment):
        experiment.report("three is 3", ours="3", confirmed=True, seeds=1)

    assert main(["--all", "--out", str(tmp_path)]) == 1
    assert "not run for the reasons above: toy" in one_line(capsys)
    assert "three is 3" in (tmp_path / "papers.md").read_text()


def test_two_processes_do_not_make_the_same_measurements_in_one_folder(made, tmp_path):
    pytest.importorskip("fcntl")
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    lock = Path(tmp_path, ".toy-quick.lock")
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StorageError, match="another process runs toy with the budget quick"):
            reproduce("toy", out=tmp_path, say=silent)
        reproduce("toy", budget="smoke", out=tmp_path, say=silent)
        other.stdin.close()
    reproduce("toy", out=tmp_path, say=silent)
    assert not lock.exists()
    assert made == ["one", "one"]


def test_an_interrupted_run_says_that_it_goes_on(made, tmp_path, capsys):
    @reproduction("stopped", "A stopped toy (Nobody 2020)", full="no time at all")
    def run(experiment):
        experiment.measure("first", lambda: 1.0)
        raise KeyboardInterrupt

    assert main(["stopped", "--out", str(tmp_path)]) == 130
    assert "the same command goes on" in one_line(capsys)
    assert json.loads((tmp_path / "stopped-quick.jsonl").read_text())["key"] == "first"


@pytest.mark.parametrize("kind", ["model_file", "checkpoint_file"])
def test_a_damaged_model_or_checkpoint_may_be_deleted(tmp_path, kind):
    def train() -> RealNVP:
        experiment = Experiment("toy", "long", tmp_path, say=silent)
        make = partial(RealNVP, 3, layers=2, hidden=(4,))
        return experiment.train("a run", make, torch.randn(60, 3), None, max_steps=2)[0]

    train()
    experiment = Experiment("toy", "long", tmp_path, say=silent)
    experiment.forget("a run")
    file = getattr(experiment, kind)("a run")
    file.write_text("bad")
    with pytest.raises(StorageError, match="delete it, and this training is made again"):
        train()
    file.unlink()
    train()
