"""Reports of reproductions: as JSON, as Markdown tables, and as pages of the documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.common.results import machine
from benchmarks.common.results import markdown as table
from papers.captions import caption
from papers.headlines import of as headlines_of
from papers.reproduction import BUDGETS, Budget, Finding, Reproduction
from papers.summaries import section
from pushforward.errors import StorageError
from pushforward.io import atomic_write

__all__ = [
    "Report",
    "headline_notes",
    "headline_table",
    "index",
    "longer_run",
    "markdown",
    "page",
    "pictures_of_longer_runs",
    "read_reports",
    "shorter_run",
    "verdict",
]

_PARTS = re.compile(r"(?:\([^()]*\)|[^;])+;?")
"""Parts of a text between semicolons; those in parentheses do not end one."""
SPREAD = (
    "± is the standard deviation over seeds, if a note says nothing else; seeds are 0, 1, and so on, and where models have different "
    "numbers of them the smallest is shown."
)


@dataclass(frozen=True)
class Report:
    """The findings of one run of a reproduction, with the conditions of the run.

    Attributes:
        name: name of the reproduction.
        title: title of the paper.
        budget: budget of the run.
        findings: in order.
        pictures: file names, in the folder of the report.
        seconds: total time.
        machine: processor, cores, versions.
        day: ISO date.
        command: command that repeats the run.
        unfinished: name of the measurement that comes next, if the run was stopped before its end.
    """

    name: str
    title: str
    budget: Budget
    findings: tuple[Finding, ...]
    pictures: tuple[str, ...]
    seconds: float
    machine: str
    day: str
    command: str
    unfinished: str = ""

    @classmethod
    def of(
        cls,
        reproduction: Reproduction,
        budget: Budget,
        findings: Sequence[Finding],
        pictures: Sequence[Path],
        seconds: float,
        seeds: int | None = None,
        machines: Collection[str] = (),
        unfinished: str = "",
    ) -> Report:
        """The report of a run that has just ended; ``seeds`` is the number that was asked for, ``machines`` are those of the measurements."""
        import pushforward

        where = f"{'; '.join(sorted(machines)) or machine()}, pushforward {pushforward.__version__}"
        command = f"python -m papers {reproduction.name} --budget {budget}" + (f" --seeds {seeds}" if seeds else "")
        names = tuple(path.name for path in pictures)
        return cls(
            reproduction.name, reproduction.title, budget, tuple(findings), names, round(seconds, 1), where, date.today().isoformat(), command,
            unfinished,
        )  # fmt: skip

    @property
    def figures(self) -> dict[str, float]:
        """The figures of all findings."""
        return {name: value for finding in self.findings for name, value in finding.figures.items()}

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.name}-{self.budget}.json"

    def write(self, folder: Path) -> Path:
        """Write it as JSON, and return the file."""
        path = folder / self.file
        content: dict[str, Any] = {**vars(self), "findings": [finding.to_json() for finding in self.findings]}
        with atomic_write(path) as file:
            file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
        return path

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read what :meth:`write` wrote.

        Raises:
            StorageError: if it is something else.
        """
        try:
            content = json.loads(path.read_text())
            findings = tuple(Finding(**finding) for finding in content.pop("findings"))
            return cls(**{**content, "findings": findings, "pictures": tuple(content["pictures"])})
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise StorageError(
                f"{path} is not a report of a reproduction ({type(error).__name__}: {error}): delete it, and repeat its run, which "
                "reads what it has measured."
            ) from error


def verdict(confirmed: bool | None) -> str:
    """Text that says whether a claim was confirmed."""
    return "not decided" if confirmed is None else "yes" if confirmed else "**no**"


def markdown(report: Report, *, lines: bool = False) -> str:
    """A table of one report. Findings of one block, which rest on the same measurements, have its CPU seconds each.

    With ``lines`` a cell has a line for each part, as pages have it.
    """
    recorded = any(finding.cpu is not None for finding in report.findings)
    rows = [
        (
            finding.claim,
            finding.paper or "–",
            _in_lines(finding) if lines else finding.ours + (f" ({finding.note})" if finding.note else ""),
            str(finding.seeds or "–"),
            verdict(finding.confirmed),
            cpu_seconds([finding]) if recorded else f"{finding.seconds:.0f}",
        )
        for finding in report.findings
    ]
    names = ["claim", "paper", "here", "seeds", "confirmed", "CPU s" if recorded else "s"]
    return table(names, rows, ["---", "---", "---", "---:", "---", "---:"])


def _in_lines(finding: Finding) -> str:
    """What was found, and its note, with one line for each part between semicolons that are not in parentheses."""
    parts = [part for text in (finding.ours, finding.note) if text for part in _PARTS.findall(text)]
    return "<br>".join(part.strip() for part in parts)


def cpu_seconds(*findings: Sequence[Finding]) -> str:
    """CPU seconds of all measurements of some findings of reports, each counted once; a dash if none was recorded."""
    blocks = [block for each in findings for block in {one.block: one for one in each if one.cpu is not None}.values()]
    complete = all(finding.cpu_complete for finding in blocks)
    seconds = sum(finding.cpu or 0.0 for finding in blocks)
    if not blocks or not (complete or seconds):
        return "–"
    return f"{seconds:,.0f}" if complete else f"over {seconds:,.0f}"


def short_title(report: Report) -> str:
    """The title without authors and year."""
    return report.title.split(" (")[0]


def _duration(report: Report) -> str:
    """CPU seconds of all measurements; without them the time of the run, and of a long one, which goes on from its file, that of its last part."""
    cpu = cpu_seconds(report.findings)
    if cpu != "–":
        return f"{cpu} s of CPU time"
    return ("its last part took " if report.budget in ("long", "full") else "") + f"{report.seconds:.0f} s"


def page(report: Report, longer: Report | None = None, shorter: Report | None = None) -> str:
    """The page of one report, of a longer run that is not finished, and of a shorter one; pictures are in the folder of the page.

    A picture that several have is that of the longest run, which replaced the others.
    """
    later = () if longer is None else longer.pictures
    parts = [
        f"# {short_title(report)}\n",
        f"{report.title}.\n",
        *(
            [headline_table([report], shorter={report.name: shorter}, longer={report.name: longer}) + "\n"]
            if headlines_of(report.name)
            else []
        ),
        *headline_notes(report, shorter),
        *([summary, "## All findings\n"] if (summary := section(report)) else []),
        f"`{report.command}`, {report.day}, {_duration(report)}; {report.machine}. {SPREAD}\n",
        *([f"This run is not finished: `{report.unfinished}` comes next.\n"] if report.unfinished else []),
        markdown(report, lines=True) + "\n",
        *(_picture(name) for name in report.pictures if name not in later),
    ]
    if longer is not None:
        parts += [
            "## A longer run, not finished\n",
            f"`{longer.command}`, {longer.day}; {longer.machine}. `{longer.unfinished}` comes next. The claims that it has so far:\n",
            markdown(longer, lines=True) + "\n",
            *(_picture(name) for name in later),
        ]
    if shorter is not None:
        parts += [
            "## A shorter run\n",
            f"`{shorter.command}`, {shorter.day}, {_duration(shorter)}; {shorter.machine}.\n",
            markdown(shorter, lines=True) + "\n",
        ]
    return "\n".join(parts)


def _picture(name: str) -> str:
    """A picture, whose text is its name without hyphens and ending, and its caption."""
    picture = f"![{name.removesuffix('.png').replace('-', ' ')}]({name})\n"
    return f"{picture}\n{below}\n" if (below := caption(name)) else picture


def headline_table(
    reports: Sequence[Report],
    folder: str | None = None,
    shorter: Mapping[str, Report | None] | None = None,
    longer: Mapping[str, Report | None] | None = None,
) -> str:
    """One line for each headline claim, with the first sentence of its note; with ``folder`` also the paper, with a link to its page.

    ``shorter`` has runs on which verdicts rest too, by paper, and ``longer`` those that are not finished. A verdict that the reports
    do not support, as those of smoke runs, is not shown.
    """
    rows = []
    for report in reports:
        for headline in headlines_of(report.name):
            note, later = _sentences(headline.note)[0], (longer or {}).get(report.name)
            verdict, scale = f"**{headline.verdict}**" + (f": {note}" if note else ""), headline.scale
            if why := headline.contradiction(report, (shorter or {}).get(report.name)):
                verdict = f"**not decided by this run**: {why}. The published pages have {headline.verdict!r}."
                scale = f"`--budget {report.budget}`"
            row = (
                headline.says,
                verdict,
                headline.figure(report, later),
                scale,
                cpu_seconds(headline.findings(report), [] if later is None else headline.findings(later)),
            )
            rows.append(row if folder is None else (f"[{short_title(report)}]({folder}{report.name}.md)", *row))
    names, rules = ["the paper says", "here", "figure", "scale", "CPU s"], ["---"] * 4 + ["---:"]
    return table(names if folder is None else ["paper", *names], rows, rules if folder is None else ["---", *rules])


def headline_notes(report: Report, shorter: Report | None = None) -> list[str]:
    """The other sentences of the notes on the headline claims of a report, as lists."""
    parts = []
    for headline in headlines_of(report.name):
        rest = _sentences(headline.note)[1:]
        if rest and not headline.contradiction(report, shorter):
            parts += [f"On the claim that {headline.says}:\n", "\n".join(f"- {sentence}" for sentence in rest) + "\n"]
    return parts


def _sentences(text: str) -> list[str]:
    """The sentences of a text, which end with a period before a space and a capital letter."""
    return re.split(r"(?<=\.) (?=[A-Z])", text)


def index(
    reports: Sequence[Report],
    folder: str = "",
    shorter: Mapping[str, Report | None] | None = None,
    longer: Mapping[str, Report | None] | None = None,
) -> str:
    """The page that links those of all reports, with one line for each claim; ``folder`` is their path relative to it.

    ``shorter`` has runs on which verdicts rest too, by paper, and ``longer`` those that are not finished.
    """
    parts = [
        "# The papers, re-run\n",
        "Written by `python -m papers --all --page docs/papers.md`. Each paper has a page with the figure of the paper, if it is known",
        "for certain, and the figure that was measured here. A claim is confirmed or not at the budget of that run, which is often",
        "smaller than the paper's. CPU seconds are those of the measurements that a line rests on and no line above it on its page used, also where a later run read them",
        'from its file; what a note takes from another page is counted there. Findings that rest on the same measurements show the same seconds, which count once in a sum. "Over": some measurements',
        "did not record it. A dash: none did, as in reports of version 0.1, whose pages have the seconds of the last run instead.",
        f"{SPREAD} Where a note has no other criterion, one model is ahead of another if a one-sided paired t-test over seeds at 5 % says so:",
        'if the mean difference is above 6.31, 2.92 or 2.13 standard errors with two, three or five seeds. One seed decides nothing: such a claim is "not decided", and is not among the confirmed ones.\n',
        "```{toctree}\n:hidden:\n:maxdepth: 1\n",
        *(f"{short_title(report)} <{folder}{report.name}>" for report in reports),
        "```\n",
    ]
    parts.append(
        "A headline claim **held**, **held in part**, **does not hold here** (with what was tried), or is **not settled at this "
        "scale** (with what is open).\n"
    )
    parts.append(headline_table(reports, folder, shorter, longer) + "\n")
    rows = []
    findings: dict[str, list[Finding]] = {}
    for report in reports:
        later = (longer or {}).get(report.name)
        findings[report.name] = found = [*report.findings, *(() if later is None else later.findings)]
        confirmed = sum(finding.confirmed is True for finding in found)
        rows.append((f"[{short_title(report)}]({folder}{report.name}.md)", f"{confirmed} of {len(found)}"))
    parts.append(table(["paper", "claims confirmed"], rows, ["---", "---:"]) + "\n")
    for report in reports:
        claims = [(finding.claim, verdict(finding.confirmed)) for finding in findings[report.name]]
        parts += [
            f"## {short_title(report)}\n",
            f"[{report.title}]({folder}{report.name}.md).\n",
            table(["claim", "confirmed"], claims, ["---", "---"]) + "\n",
        ]
    return "\n".join(parts)


def read_reports(folder: Path, names: Sequence[str], budget: Budget) -> list[Report]:
    """The reports of these reproductions in a folder, in the order of the names: of each the longest run that is there.

    Runs with a smaller budget than this one do not count, nor does a run that was stopped before it had all headline claims.
    """
    found = []
    for name in names:
        files = [folder / f"{name}-{each}.json" for each in BUDGETS[BUDGETS.index(budget) :][::-1]]
        reports = (Report.read(file) for file in files if file.exists())
        found += [next((report for report in reports if _has_headlines(report)), None)]
    return [report for report in found if report is not None]


def longer_run(folder: Path, report: Report) -> Report | None:
    """The report of a longer run that was stopped before it had all headline claims, with those that it has; None without one."""
    files = [folder / f"{report.name}-{each}.json" for each in BUDGETS[BUDGETS.index(report.budget) + 1 :][::-1]]
    found = [Report.read(file) for file in files if file.exists()]
    return next((each for each in found if each.findings), None)


def pictures_of_longer_runs(folder: Path, report: Report) -> set[str]:
    """The pictures that a folder has from longer runs of the same reproduction."""
    files = [folder / f"{report.name}-{each}.json" for each in BUDGETS[BUDGETS.index(report.budget) + 1 :]]
    return {name for file in files if file.exists() for name in Report.read(file).pictures}


def shorter_run(folder: Path, report: Report) -> Report | None:
    """The report of the longest shorter run that headlines of the paper rest on too; None without one."""
    if not any(headline.earlier for headline in headlines_of(report.name)):
        return None
    files = [
        folder / f"{report.name}-{each}.json" for each in BUDGETS[1 : BUDGETS.index(report.budget)][::-1]
    ]  # not of smoke
    return next((Report.read(file) for file in files if file.exists()), None)


def _has_headlines(report: Report) -> bool:
    """Whether a run came to its end, or at least to all claims that headlines rest on."""
    return not report.unfinished or all(not headline.missing(report) for headline in headlines_of(report.name))
