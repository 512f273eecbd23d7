"""What a page says of a paper is what the committed report supports, with its numbers."""

from dataclasses import replace
from pathlib import Path

import pytest

from papers.experiment import Experiment
from papers.report import Report, page, read_reports
from papers.reproduction import Finding
from papers.summaries import FAILS, HOLDS, SUMMARIES, USE, Point, section

FOLDER = Path(__file__).parents[2] / "docs" / "papers"
FOUND = (
    Finding("small", "", "0.5", True, 1.0, figures={"small": 0.5}),
    Finding("large", "", "2.0", False, 1.0, figures={"large": 2.0}),
)
REPORT = Report(
    "toy", "A toy (Nobody 2020)", "quick", FOUND, (), 2.0, "a machine", "2020-01-01", "python -m papers toy"
)
POINTS = (
    Point("toy", HOLDS, "It is {small:.1%}.", ("small",)),
    Point("toy", FAILS, "It is not {large:.2f}.", ("large",)),
    Point("toy", USE, "Something else."),
)


@pytest.mark.parametrize("point", SUMMARIES, ids=[f"{p.paper} {p.says[:40]}" for p in SUMMARIES])
def test_a_report_supports_each_point(point):
    [report] = read_reports(FOLDER, [point.paper], "quick")
    assert point.contradiction(report) == ""
    assert point.evidence or not point.fields()
    text = point.text(report)
    assert "{" not in text
    assert text in page(report)


@pytest.mark.parametrize("paper", sorted({point.paper for point in SUMMARIES}))
def test_the_committed_page_has_the_summary_of_the_report(paper):
    [report] = read_reports(FOLDER, [paper], "quick")
    assert section(report)
    assert section(report) in (FOLDER / f"{paper}.md").read_text()


def test_the_numbers_are_those_of_the_report(monkeypatch):
    monkeypatch.setattr("papers.summaries.SUMMARIES", POINTS)
    assert section(REPORT) == (
        "## What holds\n\n- It is 50.0%.\n\n## What does not hold\n\n- It is not 2.00.\n\n## What to use\n\n- Something else.\n"
    )
    text = page(REPORT)
    assert text.index("## What holds") < text.index("## All findings") < text.index("| claim |")


@pytest.mark.parametrize(
    ("findings", "reason"),
    [
        (FOUND[:1], "no figures large"),
        ((FOUND[0], replace(FOUND[1], claim="other")), "no claim that begins with 'large'"),
        ((FOUND[0], replace(FOUND[1], confirmed=True)), "not as 'What does not hold' says: large"),
        ((FOUND[0], replace(FOUND[1], confirmed=None)), "not as 'What does not hold' says: large"),
    ],
)
def test_a_report_that_does_not_support_a_point_has_no_summary(monkeypatch, findings, reason):
    monkeypatch.setattr("papers.summaries.SUMMARIES", POINTS)
    report = replace(REPORT, findings=findings)
    assert any(reason in point.contradiction(report) for point in POINTS)
    assert section(report) == ""
    assert "## " not in page(report)


def test_figures_travel_through_the_file_of_a_report(tmp_path):
    experiment = Experiment("toy", "quick", tmp_path, say=lambda line: None)
    experiment.report("small", ours="0.5", confirmed=True, seeds=1, figures={"small": 0.5})
    experiment.report("none", ours="-", confirmed=None, seeds=1)
    report = replace(REPORT, findings=tuple(experiment.findings))
    assert Report.read(report.write(tmp_path)).figures == {"small": 0.5}
    assert ["figures" in finding.to_json() for finding in report.findings] == [True, False]
