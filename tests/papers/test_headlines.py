"""The verdicts on headline claims are those that the committed reports support."""

from pathlib import Path

import pytest

from papers.captions import caption
from papers.headlines import HEADLINES, NOT_HERE, NOT_SETTLED, PARTLY, Headline, of
from papers.report import Report, headline_notes, headline_table, longer_run, markdown, page, read_reports, shorter_run
from papers.reproduction import Finding, registered

FOLDER = Path(__file__).parents[2] / "docs" / "papers"


@pytest.mark.parametrize("headline", HEADLINES, ids=[f"{h.paper}: {h.says}" for h in HEADLINES])
def test_a_report_supports_each_verdict(headline):
    [report] = read_reports(FOLDER, [headline.paper], "quick")
    assert headline.contradiction(report, shorter_run(FOLDER, report)) == ""
    assert headline.verdict not in (PARTLY, NOT_HERE, NOT_SETTLED) or headline.note
    assert headline.figure(report, longer_run(FOLDER, report)) != "–"


def test_tables_have_the_first_sentence_of_a_note_and_a_page_lists_all():
    [report] = read_reports(FOLDER, ["maf"], "quick")
    [long] = [headline.note for headline in of("maf") if headline.says == "MAF beats Real NVP on tables"]
    first = "ahead in five of six tables, level on protein, and ahead on BSDS300."
    assert long.startswith(first + " On BSDS300, ")
    for table in (headline_table([report], "papers/"), headline_table([report])):
        assert f"{first} |" in table
    says, sentences = headline_notes(report)[:2]
    assert says == "On the claim that MAF beats Real NVP on tables:\n"
    assert " ".join([first, *(line.removeprefix("- ") for line in sentences.splitlines())]) == long
    assert sentences in page(report)


def test_cells_of_a_page_have_a_line_for_each_part():
    finding = Finding("one is above two", "", "a 1; b (2; 3); c 4", True, 1.0, "ten steps; five seeds")
    report = Report("toy", "T", "quick", (finding,), (), 1.0, "m", "2026-01-01", "c")
    assert "| a 1;<br>b (2; 3);<br>c 4<br>ten steps;<br>five seeds |" in markdown(report, lines=True)
    assert "| a 1; b (2; 3); c 4 (ten steps; five seeds) |" in markdown(report)


def test_a_verdict_may_be_more_modest_than_its_findings():
    [report] = read_reports(FOLDER, ["maf"], "quick")
    assert Headline("maf", "", PARTLY, "", ("MAF beats Real NVP of",), "why").contradiction(report) == ""


def test_every_finding_says_on_how_many_seeds_it_rests():
    for file in FOLDER.glob("*.json"):
        for finding in Report.read(file).findings:
            assert finding.seeds is not None, (file.name, finding.claim)
            spread = "±" in finding.ours and not any(
                text in finding.note for text in ("standard error", "± over repeats")
            )
            assert finding.seeds > 1 or not spread or "in file order" in finding.ours, (file.name, finding.claim)


def test_every_picture_of_a_page_has_a_caption():
    names = [name for file in FOLDER.glob("*.json") for name in Report.read(file).pictures]
    assert names
    assert [name for name in names if not caption(name)] == []
    assert caption("glow-against-time.png").startswith("Bits/dim of 500 held-out images against CPU time")
    assert caption("aef-fashion-mnist-8.png").startswith("Fashion-MNIST, 8 latents. From the top")
    assert caption("aef-wide-mnist-2.png").startswith("MNIST, 2 latents, networks of the paper's size. From the top")
    assert caption("aef-noise-mnist-32.png").startswith("MNIST, 32 latents. Test images")
    assert caption("aef-noise-fashion-mnist-8.png").startswith("Fashion-MNIST, 8 latents. Test images")
    assert caption("toy-plot.png") == ""


def test_measurements_of_a_longer_run_count_in_the_seconds_of_a_headline():
    report = Report.read(FOLDER / "nsf-quick.json")
    later = longer_run(FOLDER, report)
    assert later is not None
    [quick], [both] = (
        [line.split("|")[-2].strip() for line in table.splitlines() if "spline couplings beat affine ones" in line]
        for table in (headline_table([report]), headline_table([report], longer={"nsf": later}))
    )
    assert int(both.replace(",", "")) > int(quick.replace(",", "")) + 4000


def test_every_paper_has_a_headline():
    import papers.claims  # noqa: F401  each import registers a reproduction

    assert {headline.paper for headline in HEADLINES} == set(registered())


def test_a_verdict_that_the_report_does_not_support_is_found():
    [report] = read_reports(FOLDER, ["maf"], "quick")
    assert "1 of 1 findings" in Headline("maf", "", NOT_HERE, "", ("MAF beats Real NVP of",)).contradiction(report)
    assert "no claim that begins" in Headline("maf", "", "held", "", ("MAF is slow",)).contradiction(report)
