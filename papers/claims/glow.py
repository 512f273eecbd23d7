"""Glow: invertible 1 x 1 convolutions (Kingma, Dhariwal 2018)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.common.datasets import load_labels
from papers.experiment import Experiment, bits_per_dim, clearly_below, spread
from papers.flows.against_time import draw, pictures, report_ahead, report_peers, run_contenders
from papers.flows.glow_setting import PEERS, glow, glow_peers
from papers.flows.longer_samples import study_lengths
from papers.reproduction import reproduction
from pushforward.models import Glow
from pushforward.models.manipulation import attribute_direction, manipulate, sample_at_temperature

__all__ = ["run"]


@reproduction(
    "glow",
    "Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma, Dhariwal 2018, arXiv 1807.03039)",
    data=("fashion-mnist", "cifar10"),  # the second: long and full
    full="1 to 2 days on one GPU for 3.39 bits/dim on CIFAR-10 (estimate), times three kinds and three seeds",
)
def run(experiment: Experiment) -> None:
    """Compare 1 x 1 convolutions with fixed permutations at equal steps (sec. 6.1); temperature (sec. 6.3); round trips.

    A long or full run also compares them at equal CPU time, beside other libraries, and shows samples after longer trainings.
    """
    name = experiment.choose(smoke="fashion-mnist", quick="fashion-mnist", full="cifar10")
    train, held_out, test = experiment.image_parts(
        name,
        rows=experiment.choose(smoke=150, quick=20_000, full=50_000),
        held_out=experiment.choose(smoke=50, quick=500, full=1000),
        test=experiment.choose(smoke=50, quick=1000, full=10_000),
    )
    shape = tuple(test.shape[1:])
    sizes = experiment.choose(
        smoke={"scales": 1, "layers": 1, "hidden": (8, 8)},
        quick={"scales": 2, "layers": 4, "hidden": (32, 32)},
        full={"scales": 3, "layers": 32, "hidden": (512, 512)},
    )
    options = {
        "max_steps": experiment.choose(smoke=2, quick=400, full=500_000),
        "batch_size": 64,
        "patience": None,
        "evaluate_every": experiment.choose(smoke=2, quick=100, full=1000),
    }
    kinds = ("1x1", "shuffle", "reverse")
    bits: dict[str, list[float]] = {kind: [] for kind in kinds}
    for seed in experiment.repeats:
        for kind in kinds:
            flow, _ = experiment.train(
                f"{kind} {seed}",
                lambda kind=kind: Glow(shape, linear=kind, **sizes),
                train,
                held_out,
                seed=seed,
                **options,
            )
            bits[kind].append(experiment.measure(f"{kind} {seed} bits", lambda flow=flow: bits_per_dim(flow, test)))
    for other in ("shuffle", "reverse"):
        gains = [theirs - ours for ours, theirs in zip(bits["1x1"], bits[other], strict=True)]
        experiment.report(
            f"an invertible 1 x 1 convolution beats {'a fixed shuffle' if other == 'shuffle' else 'reversing the channels'} at "
            "equal steps",
            paper="curves only (fig. 3, CIFAR-10)",
            ours=f"{spread(bits['1x1'])} against {spread(bits[other])} bits/dim on {name}",
            confirmed=clearly_below(bits["1x1"], bits[other]),
            seeds=len(bits["1x1"]),
            note=f"{options['max_steps']:,} steps of 64; gain by seed {', '.join(f'{gain:+.3f}' for gain in gains)}",
        )
    flow, _ = experiment.train("1x1 0", lambda: Glow(shape, linear="1x1", **sizes), train, held_out, seed=0, **options)
    _temperature(experiment, flow, test)
    _attribute(experiment, flow)
    _round_trip(
        experiment,
        lambda seed: experiment.train(
            f"1x1 {seed}", lambda: Glow(shape, linear="1x1", **sizes), train, held_out, seed=seed, **options
        )[0],
        experiment.images(name, train=False, rows=experiment.choose(smoke=50, quick=10_000, full=10_000)),
    )
    if experiment.budget != "quick":
        _against_time(experiment)
        _longer(experiment)


def _against_time(experiment: Experiment) -> None:
    """Compare the kinds of permutations of channels at equal CPU time, and with Glow of other libraries."""
    shape = pictures(experiment).shape
    kinds = [glow(experiment, shape, kind) for kind in ("1x1", "shuffle", "reverse")]
    found = run_contenders(experiment, [*kinds, *glow_peers(experiment, shape)])
    report_ahead(
        experiment,
        f"an invertible 1 x 1 convolution beats fixed permutations of the channels at equal CPU time, on {found.images.name}",
        found, "Glow 1x1", ["Glow shuffle", "Glow reverse"], paper="curves only (fig. 3, CIFAR-10)",
    )  # fmt: skip
    report_peers(
        experiment, "Glow of this library is not behind that of others at equal CPU time", found, "Glow 1x1", PEERS,
        note="as many scales and layers, equal widths; normflows' scales can only contract",
    )  # fmt: skip
    draw(experiment, found)


def _longer(experiment: Experiment) -> None:
    """Train a larger network for several lengths, and look at its samples, latent paths and moved attributes."""
    sizes = experiment.choose(
        smoke={"scales": 1, "layers": 1, "hidden": (4, 4)},
        quick={"scales": 2, "layers": 8, "hidden": (64, 64)},
        full={"scales": 2, "layers": 32, "hidden": (512, 512)},
    )
    study_lengths(experiment, "Glow", lambda: Glow((1, 28, 28), linear="1x1", **sizes), PAIRS)


def _temperature(experiment: Experiment, flow: Glow, test: torch.Tensor) -> None:
    count = experiment.choose(smoke=2, quick=12, full=12)
    many = experiment.choose(smoke=4, quick=100, full=500)
    rows, means = {"test": test[:count]}, {}
    with torch.no_grad():
        for temperature in (1.0, 0.7, 0.5):
            drawn = sample_at_temperature(flow, many, temperature, seed=0)
            rows[f"T = {temperature}"] = drawn[:count]
            means[temperature] = flow.evaluate(drawn.round().clamp(0, 255)).value.mean().item()
        real = flow.evaluate(test[:many]).value.mean().item()
    experiment.report(
        "samples at lower temperature are more likely, up to more likely than real images",
        ours=", ".join(f"T {t}: {value:.0f}" for t, value in means.items()) + f"; test images: {real:.0f} nats",
        confirmed=means[1.0] < means[0.7] < means[0.5] and means[0.5] > real,
        seeds=1,
    )
    experiment.strip("samples", rows)


LIMIT = 1e-3
"""Largest error of a round trip that passes, in gray levels."""

PAIRS = {"T-shirt to pullover": (0, 2), "sandal to ankle boot": (5, 9)}
"""Pairs of Fashion-MNIST's classes, without and with the attribute."""


def _attribute(experiment: Experiment, flow: Glow) -> None:
    """Use class pairs as attributes (sec. 6, semantic manipulation): directions from training images, a separate classifier on test images."""
    if flow.shape != (1, 28, 28):
        return
    rows, count = experiment.choose(smoke=60, quick=5000, full=60_000), experiment.choose(smoke=2, quick=200, full=1000)
    sets = {}
    for train in (True, False):
        labels = load_labels("fashion-mnist", train=train, folder=experiment.data)
        sets[train] = (experiment.images("fashion-mnist", train=train, rows=rows), labels[:rows])
    images, labels = sets[True]
    test, test_labels = sets[False]
    strips: dict[str, torch.Tensor] = {}
    fractions: dict[str, tuple[float, float]] = {}
    for name, (without, having) in PAIRS.items():
        kept = (labels == without) | (labels == having)
        if not (labels[kept] == having).any() or (labels[kept] == having).all():
            continue

        def fraction(kept: torch.Tensor = kept, without: int = without, having: int = having) -> list[float]:
            from sklearn.linear_model import LogisticRegression

            pixels = images[kept].flatten(1).numpy() / 255.0
            classifier = LogisticRegression(max_iter=200).fit(pixels, (labels[kept] == having).numpy())
            direction = attribute_direction(flow, images[kept], labels[kept] == having)
            moved = manipulate(flow, test[test_labels == without][:count], direction, (0.0, 1.0))
            return [float(classifier.predict(part.flatten(1).numpy() / 255.0).mean()) for part in moved]

        before, after = experiment.measure(f"attribute {name}", fraction)
        fractions[name] = (before, after)
        direction = attribute_direction(flow, images[kept], labels[kept] == having)
        few = test[test_labels == without][:2]
        path = manipulate(flow, few, direction, tuple(torch.linspace(-0.5, 1.5, 9).tolist()))
        strips |= {f"{name}, {k + 1}": path[:, k] for k in range(len(few))}
    if strips:
        experiment.strip("attributes", strips)
    experiment.report(
        "moving along the difference of latent means changes the attribute",
        paper="pictures only (CelebA-HQ)",
        ours="; ".join(
            f"{name}: {after:.0%} of test images classified as the second class after moving, {before:.0%} before"
            for name, (before, after) in fractions.items()
        ),
        confirmed=bool(fractions) and all(after > 0.5 > before for before, after in fractions.values()),
        seeds=1,
        note="the classifier is a logistic regression on the pixels of the training images; it does not measure whether they look real; "
        "criterion: less than half before and more than half after, for each pair",
    )


def _round_trip(experiment: Experiment, flow: Callable[[int], Glow], test: torch.Tensor) -> None:
    """Report whether decoding returns each image of ``test``, and the largest error before rounding to integers, in gray levels."""
    kinds = {"float32": torch.float32, "float64": torch.float64}

    def errors(model: Glow, dtype: torch.dtype) -> torch.Tensor:
        """Largest error of each image, in the real coordinates after dequantization."""
        inner = torch.nn.ModuleList(list(model.chain)[1:])
        largest: list[torch.Tensor] = []
        for part in test.split(250):
            y = z = (part.to(dtype) + 0.5) / model.levels
            for step in inner:
                z = step.encode(z).z  # pyright: ignore[reportCallIssue]
            for step in reversed(inner):
                z = step.decode(z)  # pyright: ignore[reportCallIssue]
            largest.append((z - y).abs().flatten(1).amax(1) * model.levels)
        return torch.cat(largest)

    def run(model: Glow) -> dict[str, dict[str, float]]:
        found = {}
        with torch.no_grad():
            for name, dtype in kinds.items():
                wide, error = name == "float64", errors(model, dtype)
                off = torch.cat([
                    (model.decode(model.encode(part, float64=wide), float64=wide) - part).abs().flatten(1) for part in test.split(250)
                ])  # fmt: skip
                found[name] = {
                    "worst": error.max().item(), "above": int((error >= LIMIT).sum()),
                    "equal": int((off == 0).all(1).sum()), "furthest": off.max().item(),
                }  # fmt: skip
        return found

    seeds = [
        experiment.measure(f"round trip, seed {seed}", lambda seed=seed: run(flow(seed))) for seed in experiment.repeats
    ]
    for name in kinds:
        rows = [found[name] for found in seeds]

        def each(key: str, form: str, rows: list[dict[str, float]] = rows) -> str:
            return ", ".join(format(row[key], form) for row in rows)

        experiment.report(
            f"the flow is invertible: with {name} latents the largest error of every image is below {LIMIT:g} gray levels",
            ours=f"worst of {len(test):,} test images, by seed: {each('worst', '.1e')}",
            confirmed=all(row["above"] == 0 for row in rows),
            seeds=len(rows),
            note=f"float32 networks; images at {LIMIT:g} or above, by seed: {each('above', ',d')}; images that are equal after rounding: "
            f"{each('equal', ',d')}; largest error of a pixel: {each('furthest', '.0f')}",
        )
