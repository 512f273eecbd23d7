"""The CPU time of measurements is recorded, kept in their file, and counted once."""

import json

import pytest
import torch

from papers.experiment import Experiment
from papers.headlines import HELD, Headline
from papers.report import Report, cpu_seconds, markdown
from papers.reproduction import Finding
from pushforward.models import RealNVP

CLOCK = [0.0]
"""CPU time, which only :func:`busy` moves."""


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    CLOCK[0] = 0.0
    monkeypatch.setattr("papers.costs.time.process_time", lambda: CLOCK[0])


def busy(seconds: float) -> float:
    """Use this much CPU time."""
    CLOCK[0] += seconds
    return seconds


def experiment(folder, **options):
    return Experiment("toy", "quick", folder, say=lambda line: None, **options)


def cpu(run: Experiment) -> list[float]:
    return [finding.cpu for finding in run.findings]


def test_a_finding_has_the_cpu_time_of_its_measurements(tmp_path):
    run = experiment(tmp_path)
    run.measure("a", lambda: busy(0.2))
    run.measure("b", lambda: busy(0.1))
    run.report("one", ours="", confirmed=True, seeds=1)
    run.report("two", ours="", confirmed=True, seeds=1)  # of the same measurements
    run.measure("c", lambda: busy(0.1))
    run.measure("a", lambda: busy(9.0))  # counted already
    run.report("three", ours="", confirmed=True, seeds=1)
    one, two, three = run.findings
    assert one.cpu == pytest.approx(0.3)
    assert (two.cpu, two.block) == (one.cpu, one.block)
    assert three.cpu == pytest.approx(0.1)
    assert three.block != one.block
    assert one.cpu_complete
    assert three.cpu_complete


def test_a_later_run_reads_the_cpu_time_from_the_file(tmp_path):
    first = experiment(tmp_path)
    first.measure("a", lambda: busy(0.2))
    first.report("one", ours="", confirmed=True, seeds=1)
    second = experiment(tmp_path)
    second.measure("a", lambda: busy(9.0))
    second.report("one", ours="", confirmed=True, seeds=1)
    assert cpu(second) == cpu(first)


def test_a_model_counts_also_where_only_what_was_measured_from_it_is_read(tmp_path):
    def run(folder) -> Experiment:
        one = experiment(folder)
        rows = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
        made = lambda: busy(0.2) and RealNVP(3, layers=2, hidden=(4,))  # noqa: E731
        trained = one.trained("a run", made, rows, None, max_steps=2)
        one.measure("score", lambda: trained.model.log_prob(rows).mean().item())
        one.report("one", ours="", confirmed=True, seeds=1)
        return one

    first, again = run(tmp_path), run(tmp_path)
    assert cpu(first)[0] == pytest.approx(0.2)
    assert cpu(again) == cpu(first)


def test_a_measurement_inside_another_counts_once(tmp_path):
    def outer(run):
        run.measure("inner", lambda: busy(0.2))
        return busy(0.1)

    first = experiment(tmp_path)
    first.measure("outer", lambda: outer(first))
    first.measure("inner", lambda: busy(9.0))
    first.report("one", ours="", confirmed=True, seeds=1)
    assert first.findings[0].cpu == pytest.approx(0.3)
    second = experiment(tmp_path)
    second.measure("outer", lambda: busy(9.0))  # its part was in the first run
    second.report("one", ours="", confirmed=True, seeds=1)
    assert cpu(second) == cpu(first)


def test_a_training_that_went_on_from_its_checkpoint_took_more(tmp_path):
    for _ in range(2):  # measured, and read from the file
        run = experiment(tmp_path)
        run.measure("training", lambda: {"seconds": busy(0.1) + 50.0})
        run.report("one", ours="", confirmed=True, seeds=1)
        assert run.findings[0].cpu == pytest.approx(0.1)
        assert not run.findings[0].cpu_complete
        assert cpu_seconds(run.findings) == "over 0"


def test_experiments_that_measure_for_one_another_count_together(tmp_path):
    run = experiment(tmp_path)
    shared = Experiment("shared", "quick", tmp_path, say=lambda line: None, costs=run.costs)
    shared.measure("a", lambda: busy(0.1))
    run.measure("a", lambda: busy(0.2))
    run.report("one", ours="", confirmed=True, seeds=1)
    assert run.findings[0].cpu == pytest.approx(0.3)


def test_a_line_without_cpu_time_makes_the_sum_a_lower_bound(tmp_path):
    (tmp_path / "toy-quick.jsonl").write_text(json.dumps({"key": "old", "value": {"seconds": 40.0}}) + "\n")
    run = experiment(tmp_path)
    run.measure("old", dict)
    run.report("a", ours="", confirmed=True, seeds=1)
    run.measure("old", dict)
    run.measure("new", lambda: busy(0.6))
    run.report("b", ours="", confirmed=True, seeds=1)
    old, new = run.findings
    assert cpu_seconds([old]) == "–"
    assert cpu_seconds([new]) == "1"
    assert cpu_seconds([old, new]) == "over 1"


def test_a_sum_counts_a_block_once():
    def finding(cpu, block, complete=True):
        return Finding("", "", "", True, 0.0, cpu=cpu, block=block, cpu_complete=complete)

    assert cpu_seconds([finding(1200.0, 1), finding(1200.0, 1), finding(30.4, 2)]) == "1,230"
    assert cpu_seconds([finding(None, 0)]) == "–"


def test_a_page_has_cpu_seconds_where_they_were_recorded():
    def page(*findings):
        return markdown(Report("toy", "T", "quick", findings, (), 1.0, "m", "2026-01-01", "c"))

    assert "| s |" in page(Finding("a", "", "1", True, 7.0))
    recorded = page(Finding("a", "", "1", True, 7.0, cpu=1234.0, block=1))
    assert "| CPU s |" in recorded
    assert "| 1,234 |" in recorded


def test_the_index_shows_the_figure_of_the_main_finding():
    long = "; ".join(f"part {k} with a figure of {k}.123" for k in range(20))
    findings = (Finding("first", "", long, True, 0.0), Finding("second", "", "0.5 against 0.7", True, 0.0))
    report = Report("toy", "T", "quick", findings, (), 1.0, "m", "2026-01-01", "c")
    assert Headline("toy", "", HELD, "", ("first", "second"), main="second").figure(report) == "0.5 against 0.7"
    shortened = Headline("toy", "", HELD, "", ("first", "second")).figure(report)
    assert shortened.endswith(".123 …")
    assert len(shortened) <= 202
