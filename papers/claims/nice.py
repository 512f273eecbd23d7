"""NICE: additive couplings and one scaling (Dinh, Krueger, Bengio 2014)."""

from __future__ import annotations

from typing import Any

import torch

from papers.experiment import Experiment, bits_per_dim, clearly_below, spread
from papers.flows.against_time import pictures, run_contenders
from papers.flows.first_couplings import nice
from papers.flows.inpainting import study_inpainting
from papers.reproduction import reproduction
from pushforward.models import ImageNICE
from pushforward.transforms import Affine

__all__ = ["run"]


@reproduction(
    "nice",
    "NICE: Non-linear Independent Components Estimation (Dinh, Krueger, Bengio 2014, arXiv 1410.8516)",
    data=("mnist", "cifar10"),  # the second: long and full
    full="about 2 hours on one GPU (estimate)",
)
def run(experiment: Experiment) -> None:
    """Train the paper's MNIST model and report its likelihood, the spectrum of its scales, and inpainting.

    A long or full run also has the likelihood of CIFAR-10.
    """
    rows = experiment.choose(smoke=300, quick=50_000, full=50_000)
    images = experiment.images("mnist", train=True)
    train, held_out = images[:rows], images[-experiment.choose(smoke=100, quick=2000, full=10_000) :]
    test = experiment.images("mnist", train=False, rows=experiment.choose(smoke=100, quick=2000, full=10_000))
    hidden = experiment.choose(smoke=(32,), quick=(500,) * 3, full=(1000,) * 5)
    options: dict[str, Any] = {"batch_size": 200} | experiment.choose(
        smoke={"max_steps": 3},
        quick={"max_steps": 4000, "learning_rate": 2e-3, "patience": None},
        full={"epochs": 1500},
    )
    shape = (1, 28, 28)

    def build(**sizes: Any) -> ImageNICE:
        return ImageNICE(shape=shape, scaling_multiplier=10.0, **sizes)

    few = {"max_steps": experiment.choose(smoke=3, quick=2000, full=5000)}
    makers = {
        "nice": (lambda: build(hidden=hidden), options),
        "scales only": (lambda: build(layers=1, hidden=()), options | few),
    }
    models: dict[str, list[ImageNICE]] = {name: [] for name in makers}
    bits: dict[str, list[float]] = {name: [] for name in makers}
    steps = parameters = 0
    for seed in experiment.repeats:
        for name, (make, how_long) in makers.items():
            model, facts = experiment.train(f"{name} {seed}", make, train, held_out, seed=seed, **how_long)
            models[name].append(model)
            bits[name].append(experiment.measure(f"{name} {seed} bits", lambda model=model: bits_per_dim(model, test)))
            if name == "nice":
                steps, parameters = facts["steps"], facts["parameters"]
    flow = models["nice"][0]
    experiment.report(
        "log-likelihood of MNIST, dequantized and scaled to [0, 1]",
        paper="1980.50 nats (4.36 bits/dim)",
        ours=f"at most {spread(bits['nice'])} bits/dim",
        confirmed=max(bits["nice"]) <= 4.40,
        seeds=len(bits["nice"]),
        note=f"{steps:,} steps of {options['batch_size']} rows, four couplings with hidden layers {hidden}, {parameters:,} "
        "parameters; the log-scales take steps ten times as large as other weights, because they would hardly change otherwise; "
        "criterion: at most 4.40 with every seed",
    )
    experiment.report(
        "the couplings learn what one linear coupling and a scaling cannot",
        ours=f"{spread(bits['nice'])} against {spread(bits['scales only'])} bits/dim",
        confirmed=clearly_below([value + 0.1 for value in bits["nice"]], bits["scales only"]),
        seeds=len(bits["nice"]),
        note="criterion: clearly, by more than 0.1",
    )
    sigma = _deviations(flow).sort(descending=True).values
    ratio = (sigma[0] / sigma[int(0.95 * len(sigma))]).item()
    experiment.report(
        "the scaling layer separates directions that matter from those that do not (sec. 5.3)",
        ours=f"the largest standard deviation is {ratio:.0f} times the 95th percentile from the top",
        confirmed=ratio > 10,
        seeds=1,
        note="criterion: more than 10 times",
    )
    filled = study_inpainting(experiment, models["nice"], train, test)
    rows = {"test": test[: len(filled)], "half filled": filled, "samples": flow.sample(len(filled), seed=0)}
    experiment.strip("samples", rows)
    if experiment.budget != "quick":
        _photographs(experiment)


def _photographs(experiment: Experiment) -> None:
    """Train a model of CIFAR-10 for as long as the flows of the other papers."""
    images = pictures(experiment)
    found = run_contenders(experiment, [contender := nice(experiment, images)])
    curve = [
        f"{bits:.3f} after {seconds:.0f} s"
        for seconds, bits in found.runs[contender.name][0]["curve"]
        if bits is not None
    ]
    experiment.report(
        "log-likelihood of CIFAR-10, whitened",
        paper="5371.78 nats (4.48 bits/dim, if its pixels are from -1 to 1)",
        ours=f"at most {found.text(contender.name)} bits/dim on {len(images.test):,} test images of {images.name}",
        confirmed=max(found.bits(contender.name)) <= 4.52,
        seeds=len(found.bits(contender.name)),
        note="a fixed symmetric whitening (ZCA, with 1e-5 added to each variance), which counts in the likelihood; criterion: at most 4.52 with every seed; held-out images: "
        f"{', '.join([*curve[:1], *curve[-1:]])}; {found.conditions()}",
    )


def _deviations(flow: torch.nn.Module) -> torch.Tensor:
    """sigma_d = exp(-s_d): standard deviation of the data along each latent direction."""
    scalings = [part for part in flow.modules() if isinstance(part, Affine) and part.trainable]
    return torch.exp(-scalings[-1].log_scale().detach().flatten())
