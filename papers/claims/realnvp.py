"""Real NVP: affine couplings at several scales (Dinh, Sohl-Dickstein, Bengio 2016)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from papers.experiment import Experiment, bits_per_dim, size, spread
from papers.flows.against_time import RATES, draw, pictures, report_ahead, run_contenders
from papers.flows.coupling_setting import coupling_setting
from papers.flows.first_couplings import nice, real_nvp
from papers.flows.longer_samples import study_lengths
from papers.reproduction import reproduction
from pushforward.models import ImageRealNVP, Model
from pushforward.models.manipulation import interpolate, sample_at_temperature

__all__ = ["run"]


@reproduction(
    "realnvp",
    "Density estimation using Real NVP (Dinh, Sohl-Dickstein, Bengio 2016, arXiv 1605.08803)",
    data=("fashion-mnist", "cifar10"),
    full="about a day on one GPU for 3.55 bits/dim on CIFAR-10 (estimate)",
)
def run(experiment: Experiment) -> None:
    """Compare affine couplings at several scales with additive ones, and interpolate in latent space.

    A long or full run also compares with NICE on CIFAR-10, and shows samples and latent paths after longer trainings.
    """
    setting = coupling_setting(experiment)
    train, held_out, test, options = setting.train, setting.held_out, setting.test, setting.options
    hidden = experiment.choose(smoke=(8, 8), quick=(32, 32), full=(64,) * 8)
    make: dict[str, Callable[[], Model]] = {
        "Real NVP": lambda: ImageRealNVP(shape=setting.shape, layers=setting.couplings, hidden=hidden)
    }
    make["NICE"] = setting.nice(size(make["Real NVP"]()))
    bits: dict[str, list[float]] = {}
    sizes: dict[str, float] = {}
    for model, build in make.items():
        for seed in experiment.repeats:
            flow, facts = experiment.train(f"{model} {seed}", build, train, held_out, seed=seed, **options)
            sizes[model] = facts["parameters"]
            bits.setdefault(model, []).append(
                experiment.measure(f"{model} {seed} bits", lambda flow=flow: bits_per_dim(flow, test))
            )
    limit = experiment.time_limit("NICE", make["NICE"], train, smoke=2, quick=40, full=24 * 3600, batch_size=64)
    longer, taken = experiment.train("NICE for longer", make["NICE"], train, held_out, seed=0,
                               **options | limit | {"evaluate_every": experiment.choose(smoke=2, quick=1000, full=1000)})  # fmt: skip
    more = experiment.measure("NICE for longer bits", lambda: bits_per_dim(longer, test))
    experiment.report(
        "multi-scale affine couplings beat NICE in likelihood",
        paper="3.49 against 4.48 bits/dim on CIFAR-10 (NICE's figure from its own paper)",
        ours=f"{spread(bits['Real NVP'])} against {spread(bits['NICE'])} bits/dim on {setting.name}",
        confirmed=max(bits["Real NVP"]) < min(bits["NICE"]),
        seeds=len(bits["Real NVP"]),
        note=f"{options['max_steps']:,} steps of 64, {sizes['Real NVP']:,} and {sizes['NICE']:,} parameters; the same rows; a step of NICE is much "
        f"cheaper: in {taken['steps']:,.0f} steps, about the time of Real NVP, it reaches {more:.3f}; criterion: the worst seed of the one is ahead of the best of the other",
    )
    flow, _ = experiment.train("Real NVP 0", make["Real NVP"], train, held_out, seed=0, **options)
    count = experiment.choose(smoke=4, quick=12, full=12)
    with torch.no_grad():
        path = interpolate(flow, test[0], test[1], steps=count)
        middle = flow.evaluate(path.round().clamp(0, 255)).value
        mixed = torch.lerp(
            test[:1].float(), test[1:2].float(), torch.linspace(0, 1, count)[:, None, None, None]
        ).round()
        plain = flow.evaluate(mixed).value
    gap = (middle[1:-1].mean() - plain[1:-1].mean()).item()
    experiment.report(
        "interpolation in latent space stays closer to the data than blending pixels (sec. 4.3, in pictures)",
        ours=f"images between two test images are {gap:+.0f} nats more likely on the latent path than on the blend",
        confirmed=gap > 0,
        seeds=1,
        note="a likelihood says little about the quality of images; see the picture",
    )
    experiment.strip(
        "samples",
        {"samples": flow.sample(count, seed=0), "T = 0.7": sample_at_temperature(flow, count, 0.7, seed=0), "latent path": path,
         "pixel blend": mixed},
    )  # fmt: skip
    if experiment.budget != "quick":
        _against_time(experiment)
        _longer(experiment)


def _against_time(experiment: Experiment) -> None:
    """Compare with NICE of whitened pixels at equal CPU time."""
    images = pictures(experiment)
    first, second = real_nvp(experiment, images), nice(experiment, images)
    found = run_contenders(experiment, [first, second])
    report_ahead(
        experiment, f"multi-scale affine couplings beat NICE at equal CPU time, on {images.name}", found, first.name, [second.name],
        paper="3.49 against 4.48 bits/dim on CIFAR-10 (NICE's figure from its own paper)", note="NICE has whitened pixels, as in its paper",
    )  # fmt: skip
    draw(experiment, found)


def _longer(experiment: Experiment) -> None:
    """Train flows of Fashion-MNIST for several lengths, and look at their samples and latent paths.

    The second has the paper's number of couplings, in networks so narrow that it has about as many parameters.
    """
    rates = experiment.choose(smoke=RATES[:1], quick=RATES, full=RATES)
    layers = experiment.choose(smoke=1, quick=2, full=8)
    hidden = experiment.choose(smoke=(4, 4), quick=(32, 32), full=(64,) * 8)
    study_lengths(
        experiment, "Real NVP", lambda: ImageRealNVP(shape=(1, 28, 28), layers=layers, hidden=hidden), rates=rates
    )
    narrow = experiment.choose(smoke=(2, 2), quick=(20, 20), full=(64,) * 8)
    study_lengths(
        experiment, "Real NVP of ten couplings", lambda: ImageRealNVP(shape=(1, 28, 28), layers=6, hidden=narrow), rates=rates,
        label="deep", lengths=experiment.choose(smoke=(1, 2), quick=(100, 400), long=(400, 2000), full=(4000, 40_000)),
    )  # fmt: skip
