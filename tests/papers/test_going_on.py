"""A run is made in parts: it stops after some hours, reports what is finished, and goes on, also on another machine."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from papers import headlines, report
from papers import reproduction as registry
from papers.__main__ import main
from papers.experiment import Experiment, UnfinishedError
from papers.headlines import HELD, Headline
from papers.measurements import SHARED
from papers.report import Report, page, read_reports
from papers.reproduction import reproduction
from papers.run import reproduce
from pushforward.errors import ConfigError, StorageError
from pushforward.models import RealNVP


def silent(line: str) -> None:
    """Say nothing."""


def toy(out: Path, budget: str = "long", **options) -> Experiment:
    return Experiment("toy", budget, out, say=silent, **options)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A registry with one reproduction of two claims, which lists its measurements as it makes them."""
    monkeypatch.setattr(registry, "_REPRODUCTIONS", {})
    monkeypatch.setattr(headlines, "HEADLINES", (Headline("toy", "one and two", HELD, "here", ("one is", "two is")),))
    keys: list[str] = []

    @reproduction("toy", "A toy (Nobody 2020)", data=("none",), full="no time at all")
    def run(experiment: Experiment) -> None:
        from matplotlib.figure import Figure

        for key, value in (("one", 1.0), ("two", 2.0)):
            found = experiment.measure(key, lambda key=key, value=value: keys.append(key) or value)
            experiment.picture(key, Figure())
            experiment.report(f"{key} is {value:g}", ours=f"{found:g}", confirmed=found == value, seeds=1)

    return keys


@pytest.fixture
def hour_between(monkeypatch: pytest.MonkeyPatch):
    """An hour passes between a measurement and the next one."""
    import papers.experiment

    clock = [0.0]
    measured = Experiment.measure

    def measure(self, key, run, *rest):
        value = measured(self, key, run, *rest)
        clock[0] += 3600
        return value

    monkeypatch.setattr(papers.experiment.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Experiment, "measure", measure)


def test_a_run_stops_before_the_next_measurement_when_its_time_is_over_and_goes_on(made, hour_between, tmp_path):
    said: list[str] = []
    first = reproduce("toy", budget="long", out=tmp_path, hours=0.5, say=said.append)
    assert made == ["one"]
    assert [finding.claim for finding in first.findings] == ["one is 1"]
    assert first.unfinished == "two"
    assert said[-1] == "stopped after 0.5 hours, before two: the same command goes on"
    assert Report.read(tmp_path / "toy-long.json") == first
    second = reproduce("toy", budget="long", out=tmp_path, hours=1.5, say=silent)
    assert made == ["one", "two"]
    assert [finding.claim for finding in second.findings] == ["one is 1", "two is 2"]
    assert not second.unfinished


def test_seeds_that_are_left_out_are_what_comes_next(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_REPRODUCTIONS", {})

    @reproduction("toy", "A toy (Nobody 2020)", data=("none",), full="no time at all")
    def run(experiment: Experiment) -> None:
        seeds = experiment.in_time(experiment.repeats, lambda seed: [f"seed {seed}"])
        found = [experiment.measure(f"seed {seed}", lambda seed=seed: seed) for seed in seeds]
        experiment.report("all seeds", ours=str(found), confirmed=True, seeds=1)

    first = reproduce("toy", budget="long", out=tmp_path, seeds=2, say=silent)
    assert (first.findings[0].ours, first.unfinished) == ("[0, 1]", "")
    over = reproduce("toy", budget="long", out=tmp_path, seeds=3, hours=1e-9, say=silent)
    assert (over.findings[0].ours, over.unfinished) == ("[0, 1]", "seed 2")
    later = reproduce("toy", budget="long", out=tmp_path, seeds=3, say=silent)
    assert (later.findings[0].ours, later.unfinished) == ("[0, 1, 2]", "")


def test_the_time_is_also_over_inside_a_measurement_and_leaves_nothing_of_it(tmp_path, monkeypatch):
    experiment = toy(tmp_path, end=-1.0)
    with pytest.raises(UnfinishedError, match="a"):
        experiment.measure("a", lambda: 1)
    assert not (tmp_path / "toy-long.jsonl").exists()
    experiment.end = float("inf")

    def outer() -> int:
        inner = experiment.measure("inner", lambda: 1)
        experiment.end = -1.0
        return inner + experiment.measure("late", lambda: 1)

    with pytest.raises(UnfinishedError, match="late"):
        experiment.measure("outer", outer)
    assert set(toy(tmp_path).measurements.values) == {"inner"}


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan")])
def test_a_time_that_is_not_positive_is_refused(made, tmp_path, hours):
    with pytest.raises(ConfigError, match="hours must be greater than 0"):
        reproduce("toy", out=tmp_path, hours=hours, say=silent)


def test_an_unfinished_report_counts_only_if_it_has_all_headline_claims(made, hour_between, tmp_path, monkeypatch):
    docs = tmp_path / "docs" / "papers.md"
    assert main(["toy", "--out", str(tmp_path / "runs"), "--page", str(docs)]) == 0
    arguments = ["toy", "--budget", "long", "--hours", "0.5", "--out", str(tmp_path / "runs")]
    assert main([*arguments, "--page", str(docs)]) == 1  # no long report that counts, and none of the pages is lost
    assert main(["--out", str(tmp_path / "runs"), "--page", str(docs)]) == 0
    text = (docs.with_suffix("") / "toy.md").read_text()
    assert "--budget quick" in text
    first, second = text.split("## A longer run, not finished")
    assert "two is 2" in first
    assert "`two` comes next" in second
    assert "one is" in second
    assert "two is" not in second
    monkeypatch.setattr(headlines, "HEADLINES", (Headline("toy", "one", HELD, "here", ("one is",)),))
    (short,) = read_reports(tmp_path / "runs", ["toy"], "quick")
    assert short.budget == "long"
    assert "This run is not finished: `two` comes next." in page(short)


def test_pages_keep_the_measurements_of_long_runs_with_which_another_machine_goes_on(made, hour_between, tmp_path):
    docs = tmp_path / "docs" / "papers.md"
    assert main(["toy", "--out", str(tmp_path / "here"), "--page", str(docs)]) == 0
    assert main(["toy", "--budget", "long", "--hours", "0.5", "--out", str(tmp_path / "here")]) == 0
    assert main(["--out", str(tmp_path / "here"), "--page", str(docs)]) == 0
    kept = docs.with_suffix("")
    assert (kept / "toy-long.jsonl").exists()
    assert not (kept / "toy-quick.jsonl").exists()
    made.clear()
    assert main(["toy", "--budget", "long", "--out", str(tmp_path / "there"), "--resume", str(kept)]) == 0
    assert made == ["two"]
    assert (tmp_path / "there" / "toy-one.png").exists()
    assert main(["toy", "--budget", "long", "--out", str(tmp_path / "new")]) == 0  # starts again
    assert made == ["two", "one", "two"]


@pytest.mark.parametrize("name", [SHARED, "other"])
def test_pages_keep_measurements_of_other_papers_that_a_run_has_only_as_a_copy(made, tmp_path, name):
    registry._REPRODUCTIONS["other"] = replace(registry._REPRODUCTIONS["toy"], name="other")
    docs, out = tmp_path / "docs" / "papers.md", tmp_path / "runs"
    kept = docs.with_suffix("")
    kept.mkdir(parents=True)
    lines = [json.dumps({"key": key, "value": 1.0, "cpu": 2.0}) + "\n" for key in ("before", "meanwhile", "new")]
    (kept / f"{name}-long.jsonl").write_text("".join(lines[:2]))
    assert main(["toy", "--budget", "long", "--out", str(out)]) == 0
    (out / f"{name}-long.jsonl").write_text(lines[0] + lines[2] + '{"key": "being writ')
    assert main(["--out", str(out), "--page", str(docs)]) == 0
    assert (kept / f"{name}-long.jsonl").read_text() == "".join(lines)
    assert (out / f"{name}-long.jsonl").read_text().endswith("being writ")


def test_going_on_keeps_what_the_folder_has_already(made, tmp_path):
    (tmp_path / "toy-long.jsonl").write_text(json.dumps({"key": "one", "value": 9.0}) + "\n")
    reproduce("toy", budget="long", out=tmp_path / "new", say=silent)
    again = reproduce("toy", budget="long", out=tmp_path / "new", resume=tmp_path, say=silent)
    assert again.findings[0].ours == "1"
    other = reproduce("toy", budget="long", out=tmp_path / "other", resume=tmp_path, say=silent)
    assert other.findings[0].ours == "9"


def test_going_on_from_a_folder_without_measurements_starts_anew_and_says_so(made, tmp_path):
    said: list[str] = []
    reproduce("toy", budget="long", out=tmp_path / "new", resume=tmp_path, say=said.append)
    assert said[0].endswith("has no toy-long.jsonl: the run starts anew")
    assert made == ["one", "two"]
    arguments = ["--all", "--budget", "long", "--out", str(tmp_path / "all"), "--resume"]
    assert main([*arguments, str(tmp_path)]) == 0
    with pytest.raises(StorageError, match="is not a folder"):
        reproduce("toy", out=tmp_path / "new", resume=tmp_path / "none", say=silent)


def test_a_report_names_the_machines_of_its_measurements(made, tmp_path):
    lines = [{"key": "one", "value": 1.0, "cpu": 1.0, "machine": "an old machine"}, {"key": "two", "value": 2.0}]
    (tmp_path / "toy-long.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert reproduce("toy", budget="long", out=tmp_path, say=silent).machine.startswith("an old machine, pushforward")
    (tmp_path / "toy-long.jsonl").write_text(json.dumps(lines[0]) + "\n")
    both = reproduce("toy", budget="long", out=tmp_path, say=silent).machine
    assert "an old machine" in both
    assert report.machine() in both


def test_a_model_of_another_machine_is_trained_again_only_if_it_is_asked_for(tmp_path):
    rows, calls = torch.randn(60, 3), []
    make = lambda: calls.append(1) or RealNVP(3, layers=2, hidden=(4,))  # noqa: E731
    first = toy(tmp_path).trained("a run", make, rows, None, max_steps=2)
    expected = first.model.log_prob(rows)
    toy(tmp_path).forget("a run")
    again = toy(tmp_path).trained("a run", make, rows, None, max_steps=2)
    assert again.facts == first.facts
    assert len(calls) == 1
    assert torch.equal(again.model.log_prob(rows), expected)
    assert len(calls) == 2
    assert again.model is again.model


def test_a_picture_stands_while_the_models_that_it_shows_are_gone(tmp_path):
    experiment = toy(tmp_path)
    make = partial(RealNVP, 3, layers=2, hidden=(4,))
    shown = experiment.trained("a run", make, torch.randn(60, 3), None, max_steps=2)
    assert not experiment.keeps_picture("plot", [shown])
    experiment.picture("plot", experiment.figure(1, 1))
    again = toy(tmp_path)
    assert not again.keeps_picture("plot", [shown])  # the models are there, so it is drawn again
    again.forget("a run")
    assert again.keeps_picture("plot", [shown])
    assert again.pictures == [tmp_path / "toy-plot.png"]


def test_denoising_of_an_unfinished_seed_hides_no_later_one(tmp_path, monkeypatch):
    from papers.claims import aef

    seen = []

    def denoising(experiment, name, latent):
        seen.append((name, latent))
        return [UnfinishedError(f"{name} {latent}")] if latent > 2 else []

    monkeypatch.setattr(aef, "_linear", lambda experiment: None)
    monkeypatch.setattr(aef, "_images", lambda *given, **options: ({}, lambda: None))
    monkeypatch.setattr(aef, "_draw_curves", lambda *given: None)
    monkeypatch.setattr(aef, "_denoising", denoising)
    with pytest.raises(UnfinishedError, match="mnist 8"):
        aef.run(Experiment("aef", "long", tmp_path, seeds=1, say=silent))
    assert seen == [(name, latent) for latent in (2, 8, 32) for name in ("mnist", "fashion-mnist")]
