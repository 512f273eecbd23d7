"""Neural spline flows (Durkan, Bekasov, Murray, Papamakarios 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable

from papers.autoencoders.vae_setting import log_likelihood, vae_setting, with_he_weights
from papers.experiment import Experiment, bits_per_dim, clearly_below, spread
from papers.flows.against_time import draw, pictures, report_ahead, report_peers, run_contenders, sample_distance
from papers.flows.coupling_setting import coupling_setting
from papers.flows.glow_setting import glow_peers
from papers.flows.image_peers import nflows_image
from papers.flows.timed_training import Contender
from papers.reproduction import reproduction
from pushforward.distributions import Normal
from pushforward.models import MAF, NSF, VAE, Flow, ImageNSF, Model
from pushforward.models.image.building import glow_scales, pixel_transforms
from pushforward.transforms import AffineTransformer, Chain, InvertibleConv1x1

__all__ = ["run"]


@reproduction(
    "nsf",
    "Neural Spline Flows (Durkan, Bekasov, Murray, Papamakarios 2019, arXiv 1906.04032)",
    data=("fashion-mnist", "cifar10", "mnist"),  # the second: long and full
    full="1 to 2 days on one GPU for CIFAR-10 (estimate)",
)
def run(experiment: Experiment) -> None:
    """Compare additive, affine and spline couplings on images, then flows as posterior and prior of a VAE.

    A long or full run also compares affine and spline couplings at equal CPU time, beside other libraries.
    """
    _images(experiment)
    _variational(experiment)
    if experiment.budget != "quick":
        _against_time(experiment)


def affine_flow(shape: tuple[int, ...], *, scales: int, layers: int, hidden: tuple[int, ...]) -> Model:
    """``ImageNSF`` with affine couplings, which is the paper's affine baseline: equal steps and networks."""
    flow = glow_scales(
        shape, scales=scales, layers=layers, mix=lambda inside, seed: [InvertibleConv1x1(inside, seed=seed)],
        transformer=AffineTransformer(3.0), context=0, factor_out=True, network={"hidden": hidden, "residual": True},
    )  # fmt: skip
    return Flow(Chain(*pixel_transforms(shape, 256, None), flow), Normal(math.prod(shape)))


def _against_time(experiment: Experiment) -> None:
    """Compare spline and affine couplings with equal networks at equal CPU time, and with those of nflows."""
    shape = pictures(experiment).shape
    sizes = experiment.choose(
        smoke={"scales": 1, "layers": 1, "hidden": (4,)},
        quick={"scales": 3, "layers": 4, "hidden": (32, 32)},
        full={"scales": 3, "layers": 7, "hidden": (96, 96, 96)},
    )
    bins = 4
    parts = (shape, sizes["scales"], sizes["layers"], sizes["hidden"][0])
    blocks = len(sizes["hidden"])
    found = run_contenders(experiment, [
        Contender("splines", lambda: ImageNSF(shape, bins=bins, alpha=None, **sizes), judge=sample_distance),
        Contender("affine", lambda: affine_flow(shape, **sizes), judge=sample_distance),
        Contender("nflows splines", lambda: nflows_image("NSF", *parts, bins=bins, blocks=blocks), library="nflows"),
        Contender("nflows affine", lambda: nflows_image("affine NSF", *parts, blocks=blocks), library="nflows"),
        *glow_peers(experiment, shape)[:1],
    ])  # fmt: skip
    report_ahead(
        experiment, f"spline couplings beat affine ones at equal CPU time, on {found.images.name}", found, "splines", ["affine"],
        paper="3.38 against 3.41 bits/dim on CIFAR-10, at equal steps", note=f"equal networks; {bins} bins",
    )  # fmt: skip
    if "nflows splines" in found.runs:
        report_ahead(
            experiment, "the same in nflows at equal CPU time", found, "nflows splines", ["nflows affine"],
            note="its affine couplings can only contract",
        )  # fmt: skip
    report_peers(
        experiment, "a spline flow of this library is not behind the flows of others at equal CPU time", found, "splines",
        ["nflows splines", "normflows Glow"], note="normflows has no spline couplings of images, so it is there with its Glow",
    )  # fmt: skip
    draw(experiment, found)


def _images(experiment: Experiment) -> None:
    """Additive, affine and spline couplings on images, at equal parameters and equal steps."""
    setting = coupling_setting(experiment)
    train, held_out, test, options = setting.train, setting.held_out, setting.test, setting.options
    width, layers = experiment.choose(smoke=8, quick=24, full=96), experiment.choose(smoke=1, quick=3, full=7)
    blocks = experiment.choose(smoke=1, quick=1, full=3)

    def spline() -> Model:
        return ImageNSF(shape=setting.shape, layers=layers, hidden=(width,) * blocks)

    models: dict[str, Callable[[], Model]] = {**setting.same_size(spline()), "NSF": spline}
    bits: dict[str, list[float]] = {model: [] for model in models}
    facts: dict[str, dict[str, float]] = {}
    for seed in experiment.repeats:
        for model, build in models.items():
            flow, facts[model] = experiment.train(f"{model} {seed}", build, train, held_out, seed=seed, **options)
            bits[model].append(experiment.measure(f"{model} {seed} bits", lambda flow=flow: bits_per_dim(flow, test)))
    note = "; ".join(
        f"{model} {found['parameters']:,} parameters, {found['seconds']:.0f} s" for model, found in facts.items()
    )
    experiment.report(
        "affine couplings beat additive ones",
        paper="3.49 against 4.48 bits/dim on CIFAR-10 (Real NVP and NICE, from their papers)",
        ours=f"{spread(bits['Real NVP'])} against {spread(bits['NICE'])} bits/dim on {setting.name}",
        confirmed=clearly_below(bits["Real NVP"], bits["NICE"]),
        seeds=len(bits["Real NVP"]),
        note=f"{options['max_steps']:,} steps of 64; {note}",
    )
    experiment.report(
        "spline couplings beat affine ones",
        paper="3.38 against 3.41 bits/dim on CIFAR-10 (its affine baseline)",
        ours=f"{spread(bits['NSF'])} against {spread(bits['Real NVP'])} bits/dim on {setting.name}",
        confirmed=clearly_below(bits["NSF"], bits["Real NVP"]),
        seeds=len(bits["NSF"]),
        note="equal parameters and steps; the Real NVP has its own masks and scales, the NSF Glow's steps",
    )
    count = experiment.choose(smoke=2, quick=12, full=12)
    rows = {"test": test[:count]}
    for model, build in models.items():
        flow, _ = experiment.train(f"{model} 0", build, train, held_out, seed=0, **options)
        rows[model] = flow.sample(count, seed=0)
    experiment.strip("samples", rows)


def _variational(experiment: Experiment) -> None:
    """Posterior and prior of a VAE with splines, with affine autoregressive flows, and without flows (sec. 5.2, table 3)."""
    setting = vae_setting(experiment)
    latent = setting.vae["latent"]
    layers, width = experiment.choose(smoke=1, quick=2, full=5), experiment.choose(smoke=8, quick=64, full=128)
    flow = {"posterior_layers": layers, "posterior_hidden": (width, width), "posterior_context": 32}
    prior = {"layers": layers, "hidden": (width, width)}
    models: dict[str, Callable[[], VAE]] = {
        "without flows": lambda: VAE(**setting.vae),
        "IAF and MAF": lambda: VAE(**setting.vae, posterior="iaf", prior=MAF(features=latent, **prior, standardize=False), **flow),
        "splines": lambda: VAE(**setting.vae, posterior="nsf", prior=NSF(features=latent, **prior, standardize=False), **flow),
    }  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in models}
    facts: dict[str, dict[str, float]] = {}
    for seed in experiment.repeats:
        for name, build in models.items():
            model, facts[name] = experiment.train(
                f"VAE {name} {seed}", lambda build=build: with_he_weights(build()), setting.train, setting.held_out,
                seed=seed, **setting.options,
            )  # fmt: skip
            found[name].append(
                experiment.measure(
                    f"VAE {name} {seed} nats", lambda model=model: log_likelihood(model, setting.test, setting.samples)
                )
            )
    note = f"{setting.options['max_steps']:,} steps of 128, {setting.samples} importance samples, {layers} layers in posterior and prior; " + "; ".join(
        f"{name} {of['parameters']:,} parameters, {of['seconds']:.0f} s" for name, of in facts.items()
    )  # fmt: skip

    def clearly_above(high: str, low: str) -> bool | None:
        return clearly_below([-value for value in found[high]], [-value for value in found[low]])

    behind = clearly_above("IAF and MAF", "splines")
    experiment.report(
        "splines as posterior and prior of a VAE beat a VAE without flows",
        paper="-79.63 against -81.31 nats on MNIST (its binarization; 150,000 steps)",
        ours=f"{spread(found['splines'], 2)} against {spread(found['without flows'], 2)} nats",
        confirmed=clearly_above("splines", "without flows"),
        seeds=len(found["splines"]),
        note=note,
    )
    experiment.report(
        "and are at least level with IAF and MAF there",
        paper="-79.63 against -79.95 nats (two standard errors: 0.43)",
        ours=f"{spread(found['splines'], 2)} against {spread(found['IAF and MAF'], 2)} nats",
        confirmed=None if behind is None else not behind,
        seeds=len(found["splines"]),
        note="level: not clearly behind",
    )
