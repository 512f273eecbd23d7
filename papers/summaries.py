"""What holds of a paper, in plain sentences at the top of its page.

The numbers in a sentence are figures of the report, so that a new run changes them. As in `papers/headlines.py`, a sentence names the
findings that it rests on, and one that the report does not support fails a test (`tests/papers/test_paper_summaries.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from papers.report import Report

__all__ = ["CODE", "FAILS", "HOLDS", "SUMMARIES", "USE", "Point", "section"]

Part = Literal["What holds", "What does not hold", "The released code", "What to use"]
HOLDS: Part = "What holds"
FAILS: Part = "What does not hold"
CODE: Part = "The released code"
USE: Part = "What to use"


@dataclass(frozen=True)
class Point:
    """One point of the summary of a paper.

    Attributes:
        paper: name of the reproduction.
        part: heading under which it stands.
        says: sentences, with a field such as ``{false_alarms:.1%}`` for each number, which is a figure of a finding.
        evidence: how the claims of the findings begin that it rests on; all are confirmed if the part is ``HOLDS``, and none if
            it is ``FAILS``. Empty for facts about code and for advice.
    """

    paper: str
    part: Part
    says: str
    evidence: tuple[str, ...] = ()

    def fields(self) -> set[str]:
        """The names of the figures in the sentences."""
        return {name for _, name, _, _ in Formatter().parse(self.says) if name}

    def text(self, report: Report) -> str:
        """The sentences, with the figures of a report."""
        return self.says.format(**report.figures)

    def contradiction(self, report: Report) -> str:
        """Why the report does not support it; "" if it does."""
        if missing := self.fields() - set(report.figures):
            return f"the report of {self.paper} has no figures {', '.join(sorted(missing))}"
        for begin in self.evidence:
            if not any(finding.claim.startswith(begin) for finding in report.findings):
                return f"the report of {self.paper} has no claim that begins with {begin!r}"
        rests_on = [finding for finding in report.findings if finding.claim.startswith(self.evidence or ("\n",))]
        wrong = [finding.claim for finding in rests_on if finding.confirmed is not (self.part == HOLDS)]
        return f"not as {self.part!r} says: {'; '.join(wrong)}" if wrong else ""


def of(paper: str) -> Sequence[Point]:
    """The points of a paper."""
    return [point for point in SUMMARIES if point.paper == paper]


def section(report: Report) -> str:
    """The summary as Markdown; "" for a paper without one, and for a report that does not support all of it."""
    points = of(report.name)
    if not points or any(point.contradiction(report) for point in points):
        return ""
    parts = []
    for part in (HOLDS, FAILS, CODE, USE):
        texts = [f"- {point.text(report)}" for point in points if point.part == part]
        parts += [f"## {part}\n", "\n".join(texts) + "\n"] if texts else []
    return "\n".join(parts)


SUMMARIES = (
    Point(
        "inflow", HOLDS,
        "**A test of a batch.** The gate is a two-sample test, and as a test of a batch it works: at a level of 5% it rejects "
        "{false_alarms:.1%} of {normal_batches:.0f} in-distribution batches. Of {batches:.0f} batches from another set (MNIST, notMNIST, or "
        "Fashion-MNIST with a third of its contrast) it rejects, in the worst case of the three, {power_ten:.0%} with 10 images a batch and "
        "{power_many:.0%} with {many:.0f}.",
        ("the gate rejects in-distribution batches", "batches of 250", "batches of 10 from"),
    ),
    Point(
        "inflow", HOLDS,
        "**A random network is enough; raw pixels do as well.** The same test of raw pixels rejects {pixels_ten:.0%} of the batches of 10 in "
        "the worst case.",
        ("batches of 10 from",),
    ),
    Point(
        "inflow", FAILS,
        "**A decision about one image.** At 5% the gate rejects {one_MNIST:.0%} of {batches:.0f} single images of MNIST, {one_notMNIST:.0%} of notMNIST "
        "and {one_gray:.0%} of Fashion-MNIST with a third of its contrast. Its statistic for single images has an AUROC of "
        "{kernel_MNIST:.3f}, {kernel_notMNIST:.3f} and {kernel_gray:.3f} on them, and -log p of the flow {plain_MNIST:.3f}, "
        "{plain_notMNIST:.3f} and {plain_gray:.3f}.",
        ("single images from another set", "single images are separated nearly"),
    ),
    Point(
        "inflow", FAILS,
        "**The AUROC by image.** It is the power of a test of pure batches in other words. From the same scores of batches of 250 images it "
        "is {unfair_250:.3f} if in-distribution images skip the gate, as in the released code; {fair_250:.3f} if all images pass it; and "
        "{mixed_250:.3f} if a tenth of each batch is from the other set.",
        ("the per-image ROC",),
    ),
    Point(
        "inflow", FAILS,
        "**A stream with a few outliers.** With 1% of MNIST in batches of {many:.0f} the gate rejects {one_percent:.0%} of {batches:.0f} "
        "batches, where 5% is its level. Most batches are rejected from {half:.0%} of MNIST on; with {half:.0%} of it, {innocent:.0%} of the images "
        "of a rejected batch are in-distribution.",
        ("the gate detects 1%", "the inputs that the gate rejects"),
    ),
    Point(
        "inflow", FAILS,
        "**Adversarial inputs.** An attack that lowers the likelihood of Fashion-MNIST by changes of at most 8 gray levels is rejected in "
        "{lowered_8:.0%} of {attacks:.0f} batches of {attacked:.0f}, where -log p alone has an AUROC of {lowered_auroc_8:.3f}. Of the batches of "
        "notMNIST that an attacker who knows the gate changes by at most 64 levels it rejects {hidden_64:.0%}.",
        ("adversarial inputs are detected", "an attacker who raises"),
    ),
    Point(
        "inflow", CODE,
        "Read at commit d10d219 of `ComputationalRadiationPhysics/InFlow`. In `eval.py`, `get_loss_vals_ones` scores the in-distribution set "
        "and leaves the gate open whatever the test says; `get_loss_vals_trained` scores every other set, with the gate that the test "
        "sets. False alarms of the gate are therefore in no ROC curve.",
    ),
    Point(
        "inflow", CODE,
        "With an open gate both functions subtract the log-determinant, where the change of variables adds it; with a closed gate it is "
        "left out. Rejected batches then have the high scores, and `roc_curve` takes a high score as a sign of another set (`pos_label=0`).",
    ),
    Point(
        "inflow", CODE,
        "The log-determinant that a block returns does not depend on the gate, and its reverse direction has no gate. The network whose "
        "features are tested is random and not trained, and pixels of 8 bits are not dequantized.",
    ),
    Point(
        "inflow", USE,
        "For batches of a stream `pushforward.detection.BatchTwoSampleGate`. For a decision about one image a `pushforward.Guard`, whose "
        "p-value is that of the image alone.",
    ),
)  # fmt: skip
