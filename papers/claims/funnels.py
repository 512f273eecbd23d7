"""Funnels: exact maximum likelihood with dimension reduction (Klein et al. 2021)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.common.datasets import load_table
from papers.experiment import Experiment, bits_per_dim, clearly_below, size, spread
from papers.flows.against_time import draw, pictures, report_ahead, report_peers, run_contenders, sample_distance
from papers.flows.glow_setting import glow_peers
from papers.flows.image_peers import nflows_image
from papers.flows.table_recipes import COPIES
from papers.flows.timed_training import Contender
from papers.reproduction import reproduction
from pushforward.detection import auroc
from pushforward.models import NSF, FunnelFlow, ImageFunnelFlow, ImageNSF, Model

__all__ = ["ring", "run"]

WIDTH = 0.05
"""Standard deviation of the noise around the circle."""


_NAMES = {
    "funnel": "funnel",
    "full": "full width",
    "early": "funnel as the third layer",
    "early, deep": "with three layers in its decoder too",
}


@reproduction(
    "funnels",
    "Funnels: Exact Maximum Likelihood with Dimensionality Reduction (Klein, Raine, Pina-Otey, Voloshynovskiy, Golling 2021, "
    "arXiv 2112.08069)",
    data=("uci/protein", "uci/kin40k", "fashion-mnist", "mnist", "cifar10"),  # the last: long and full
    full="a day on one GPU (estimate); the paper's own tables are not available",
)
def run(experiment: Experiment) -> None:
    """Compare a funnel with the true density near a circle, and with a full-width flow on tables and on images.

    A long or full run also compares it with that flow at equal CPU time, beside other libraries.
    """
    _ring(experiment)
    for name in ("protein", "kin40k"):
        _table(experiment, name)
    _images(experiment)
    if experiment.budget != "quick":
        _against_time(experiment)


def _against_time(experiment: Experiment) -> None:
    """Compare a funnel with the flow of full width at equal CPU time, and with that flow of nflows."""
    shape = pictures(experiment).shape
    sizes = experiment.choose(
        smoke={"scales": 2, "layers": 1, "hidden": (4,), "bins": 4},
        quick={"scales": 2, "layers": 4, "hidden": (32,), "bins": 4},
        full={"scales": 3, "layers": 7, "hidden": (96,), "bins": 4},
    )
    parts = (shape, sizes["scales"], sizes["layers"], sizes["hidden"][0])
    found = run_contenders(experiment, [
        Contender("funnel", lambda: ImageFunnelFlow(shape, alpha=None, **sizes), judge=sample_distance),
        Contender("full width", lambda: ImageNSF(shape, alpha=None, factor_out=False, **sizes), judge=sample_distance),
        Contender(
            "nflows full width", lambda: nflows_image("NSF", *parts, bins=4, blocks=1, factor_out=False), library="nflows"
        ),
        *glow_peers(experiment, shape)[:1],
    ])  # fmt: skip
    latent, whole = math.prod(ImageFunnelFlow(shape, **sizes).base.shape), math.prod(shape)
    report_ahead(
        experiment,
        f"at {latent:,} of {whole:,} coordinates a funnel is as good as the flow of full width, or better, on {found.images.name} at "
        "equal CPU time",
        found, "funnel", ["full width"], level=True, note="equal layers and networks, beside those of the funnel",
    )  # fmt: skip
    report_peers(
        experiment, "a funnel is not behind the flows of other libraries at equal CPU time", found, "funnel",
        ["nflows full width", "normflows Glow"], note="no other library here has funnels of images",
    )  # fmt: skip
    draw(experiment, found)


def ring(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows ``(count, 8)`` near a circle, and their exact log-densities.

    Angle von Mises with concentration 1, radius 1 + e_0, six more directions e_1, ..., e_6, all e normal with standard deviation
    0.05: log p = log vM(angle) + sum log N(e) - log radius.
    """
    angles = torch.distributions.VonMises(
        torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # torch's von Mises takes no generator
        angle = angles.sample((count,))
    noise = torch.randn(count, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    radius = 1 + WIDTH * noise[:, 0]
    rows = torch.cat(((radius * angle.cos())[:, None], (radius * angle.sin())[:, None], WIDTH * noise[:, 1:]), 1)
    normal = -0.5 * noise.square() - math.log(WIDTH * math.sqrt(2 * math.pi))
    return rows.float(), angles.log_prob(angle) + normal.sum(1) - radius.log()


def _ring(experiment: Experiment) -> None:
    train, _ = ring(experiment.choose(smoke=200, quick=20_000, full=100_000), 0)
    held_out, _ = ring(1000, 1)
    test, truth = ring(experiment.choose(smoke=200, quick=10_000, full=10_000), 2)
    models: dict[str, Callable[[], Model]] = {"funnel": lambda: FunnelFlow(8, latent=2), "full": lambda: NSF(8)}
    options = {"max_steps": experiment.choose(smoke=2, quick=1000, full=20_000), "patience": None}
    gaps: dict[str, float] = {}
    for kind, build in models.items():
        model, _ = experiment.train(f"ring {kind}", build, train, held_out, **options)
        gaps[kind] = experiment.measure(
            f"ring {kind} gap", lambda model=model: truth.mean().item() - _mean(model, test)
        )
    experiment.report(
        "a funnel from 8 to 2 coordinates reaches the true density near a circle",
        ours=f"{gaps['funnel']:.2f} nats below the truth, the flow of full width {gaps['full']:.2f}",
        confirmed=gaps["funnel"] < 0.3,
        seeds=1,
        note=f"{options['max_steps']:,} steps; criterion (ours): below 0.3 nats",
    )


def _table(experiment: Experiment, name: str) -> None:
    nats: dict[str, list[float]] = {"funnel": [], "full": [], "early": [], "early, deep": []}
    flows: dict[str, Model] = {}
    train = torch.empty(0)
    latent = features = 0
    for seed in experiment.repeats:
        train, held_out, test = load_table(name, seed=seed, folder=experiment.data)
        if experiment.budget == "smoke":
            train, held_out = train[:250], held_out[:50]
        features = train.shape[1]
        latent = features // 2
        narrow = {"latent": latent, "decoder": "spline"}
        models: dict[str, Callable[[], Model]] = {
            "funnel": lambda features=features, narrow=narrow: FunnelFlow(features, **narrow),
            "full": lambda features=features: NSF(features),
        }
        if seed == 0:  # with the funnel at the position of the reference code
            models["early"] = lambda features=features, narrow=narrow: FunnelFlow(features, funnel_layer=2, **narrow)
            models["early, deep"] = lambda features=features, narrow=narrow: FunnelFlow(
                features, funnel_layer=2, decoder_layers=3, **narrow
            )
        for kind, build in models.items():
            flows[kind], _ = experiment.train(
                f"{name} {kind} {seed}", build, train, held_out, seed=seed, patience=None,
                max_steps=experiment.choose(smoke=2, quick=700, full=50_000),
            )  # fmt: skip
            nats[kind].append(
                experiment.measure(
                    f"{name} {kind} {seed} nats", lambda model=flows[kind], test=test: _mean(model, test)
                )
            )
    gains = [ours - theirs for ours, theirs in zip(nats["funnel"], nats["full"], strict=True)]
    behind = clearly_below(nats["funnel"], nats["full"])
    experiment.report(
        f"at {latent} of {features} coordinates a funnel is as good as the flow of full width, or better, on {name}",
        ours=f"{spread(nats['funnel'], 2)} against {spread(nats['full'], 2)} nats; {_costs(experiment, name, flows, train[:512])}",
        confirmed=None if behind is None else not behind,
        seeds=len(nats["funnel"]),
        note=f"equal steps; gain by seed {', '.join(f'{gain:+.2f}' for gain in gains)}; the funnel is the last of six layers; as the "
        f"third it has {nats['early'][0]:.2f} nats, and {nats['early, deep'][0]:.2f} with three layers in its decoder (seed 0); criterion: not clearly behind; "
        f"not one of the paper's tables{f'; {COPIES}' if name == 'protein' else ''}",
    )


def _images(experiment: Experiment) -> None:
    train, held_out, test = experiment.image_parts(
        "fashion-mnist",
        rows=experiment.choose(smoke=150, quick=20_000, full=60_000),
        held_out=experiment.choose(smoke=50, quick=500, full=1000),
        test=experiment.choose(smoke=50, quick=1000, full=10_000),
    )
    other = experiment.images("mnist", train=False, rows=len(test))
    sizes = {
        "shape": tuple(test.shape[1:]), "layers": experiment.choose(smoke=1, quick=3, full=7), "hidden": (experiment.choose(smoke=8, quick=24, full=96),),
        "bins": 4,
    }  # fmt: skip
    models: dict[str, Callable[[], Model]] = {
        "funnel": lambda: ImageFunnelFlow(**sizes),
        "full": lambda: ImageNSF(**sizes, factor_out=False),
    }
    options = {"max_steps": experiment.choose(smoke=2, quick=400, full=100_000), "batch_size": 64, "patience": None}
    flows: dict[str, Model] = {}
    bits: dict[str, list[float]] = {kind: [] for kind in models}
    for seed in experiment.repeats:
        for kind, build in models.items():
            model, _ = experiment.train(f"images {kind} {seed}", build, train, held_out, seed=seed, **options)
            flows.setdefault(kind, model)
            bits[kind].append(
                experiment.measure(f"images {kind} {seed} bits", lambda model=model: bits_per_dim(model, test))
            )
    latent = math.prod(flows["funnel"].base.shape)
    experiment.report(
        f"at {latent} of {test[0].numel()} coordinates a funnel is as good as the flow of full width, or better, on Fashion-MNIST",
        ours=f"{spread(bits['funnel'])} against {spread(bits['full'])} bits/dim; {_costs(experiment, 'images', flows, train[:64])}",
        confirmed=clearly_below(bits["funnel"], [value + 0.02 for value in bits["full"]]),
        seeds=len(bits["funnel"]),
        note=f"{options['max_steps']:,} steps of 64; confirmed if it is below by a one-sided paired t-test over seeds at 5 %, with a margin of 0.02 bits/dim",
    )
    splits = experiment.measure("images split", lambda: _split(flows["funnel"], test, other))
    experiment.report(
        "the latent term of the likelihood and the term of the dropped coordinates rank unlike images differently",
        ours=", ".join(f"{part} {value:.2f}" for part, value in splits.items()),
        confirmed=max(splits.values()) - min(splits.values()) > 0.1,
        seeds=1,
        note="AUROC of Fashion-MNIST (in-distribution) against MNIST, by the log-likelihood and by its terms; criterion: more than 0.1 apart",
    )


def _split(model: Model, test: Tensor, other: Tensor) -> dict[str, float]:
    """AUROC of the log-likelihood, of log p(z), and of the funnels' terms; lower values mean out of distribution."""

    def parts(images: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            results = [model.evaluate(part) for part in images.split(250)]
        joined = {name: torch.cat([result.terms[name] for result in results]) for name in results[0].terms}
        dropped = [value for name, value in joined.items() if name.endswith("Funnel")]
        return {
            "log p(x)": torch.cat([result.value for result in results]),
            "log p(z)": joined["base"],
            "funnels": torch.stack(dropped).sum(0),
        }

    inside, outside = parts(test), parts(other)
    return {name: auroc(-inside[name].double().numpy(), -outside[name].double().numpy()) for name in inside}


def _costs(experiment: Experiment, key: str, models: dict[str, Model], rows: Tensor) -> str:
    """Parameters, and CPU time of a training step and of drawing as many samples: the minimum of five interleaved runs."""

    def cpu_times() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for model in models.values():
            model.train()
        for _ in range(5):
            for kind, model in models.items():
                began = time.process_time()
                model.loss(rows).backward()
                trained = time.process_time()
                with torch.no_grad():
                    model.sample(len(rows), seed=0)
                now = (1000 * (trained - began), 1000 * (time.process_time() - trained))
                found[kind] = [min(pair) for pair in zip(found.get(kind, now), now, strict=True)]
        for model in models.values():
            model.eval()
        return found

    times = experiment.measure(f"{key} times", cpu_times)
    each = (
        f"{_NAMES[kind]} {size(model):,}, {times[kind][0]:.0f} and {times[kind][1]:.0f}"
        for kind, model in models.items()
    )
    return f"parameters, and ms for a step of {len(rows)} rows and for as many samples: {'; '.join(each)}"


def _mean(model: Model, rows: Tensor) -> float:
    with torch.no_grad():
        return torch.cat([model.log_prob(part) for part in rows.split(4096)]).double().mean().item()
