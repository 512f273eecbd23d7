"""The verdicts on headline claims are those that the committed reports support."""

from pathlib import Path

import pytest

from papers.headlines import HEADLINES, NOT_HERE, NOT_SETTLED, PARTLY, Headline
from papers.report import read_reports
from papers.reproduction import registered

FOLDER = Path(__file__).parents[2] / "docs" / "papers"


@pytest.mark.parametrize("headline", HEADLINES, ids=[f"{h.paper}: {h.says}" for h in HEADLINES])
def test_a_report_supports_each_verdict(headline):
    [report] = read_reports(FOLDER, [headline.paper], "quick")
    assert headline.contradiction(report) == ""
    assert headline.verdict not in (PARTLY, NOT_HERE, NOT_SETTLED) or headline.note


def test_every_paper_has_a_headline():
    import papers.claims  # noqa: F401  each import registers a reproduction

    assert {headline.paper for headline in HEADLINES} == set(registered())


def test_a_verdict_that_the_report_does_not_support_is_found():
    [report] = read_reports(FOLDER, ["maf"], "quick")
    assert "1 of 1 findings" in Headline("maf", "", NOT_HERE, "", ("MAF beats Real NVP of",)).contradiction(report)
    assert "no claim that begins" in Headline("maf", "", "held", "", ("MAF is slow",)).contradiction(report)
