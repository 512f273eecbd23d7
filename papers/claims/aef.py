"""Autoencoders within flows: deterministic training of generative autoencoders (Silvestri, Roos, Ambrogioni 2023)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from papers.distances import principal
from papers.experiment import (
    Experiment,
    Trained,
    UnfinishedError,
    all_hold,
    bits_per_dim,
    clearly_below,
    spread,
)
from papers.reproduction import reproduction
from pushforward.distributions import Distribution
from pushforward.models import AEF, MAF, AutoEncoder, Flow, Model
from pushforward.models.image.building import pixel_transforms
from pushforward.models.latent.autoencoder import mmd
from pushforward.models.latent.vae import posterior_flow, prior_distribution
from pushforward.transforms import ActNorm, Chain, GaussianLikelihood, Variational
from pushforward.transforms.coupling.autoencode import core_of

__all__ = ["gaussian_pair", "noisy", "run"]


@reproduction(
    "aef",
    "Deterministic training of generative autoencoders using invertible layers (Silvestri, Roos, Ambrogioni 2023, arXiv 2205.09546)",
    data=("mnist", "fashion-mnist"),
    full="a day on one GPU for each data set and latent width (estimate)",
)
def run(experiment: Experiment) -> None:
    """Compare the linear form with the true density, and both forms with a VAE of the same networks, flows and steps."""
    _linear(experiment)
    names = ("mnist", "fashion-mnist")
    denoised = experiment.choose(smoke=names[:1], quick=names[:1], long=names, full=names)
    curves: dict[tuple[str, int], Curves] = {}
    unfinished: list[UnfinishedError] = []
    for latent in experiment.choose(smoke=(2,), quick=(8,), long=(2, 8, 32), full=(2, 8, 32)):
        for name in names:
            curves[name, latent], draw = _images(experiment, name, latent)
            draw()
        _draw_curves(experiment, curves)  # again after each width, for a run that is stopped
        for name in denoised:
            unfinished += _denoising(experiment, name, latent)
    if experiment.budget == "long":  # a full run has these networks throughout
        unfinished += _wide(experiment, names)
    if unfinished:  # after all claims of which something is measured
        raise unfinished[0]


def _wide(experiment: Experiment, names: Sequence[str]) -> list[UnfinishedError]:
    """Compare networks of the paper's size, as :func:`_images` does; the errors of what is not finished."""
    curves: dict[tuple[str, int], Curves] = {}
    draws: list[Callable[[], None]] = []
    unfinished: list[UnfinishedError] = []
    for latent in (2, 8, 32):
        for name in names:
            try:
                curves[name, latent], draw = _images(experiment, name, latent, wide=True)
                draws.append(draw)
            except UnfinishedError as error:
                unfinished.append(error)
    if curves:
        _draw_curves(experiment, curves, "wide-curves")
    for draw in draws:  # after all seeds, because a picture may need another training
        try:
            draw()
        except UnfinishedError as error:
            unfinished.append(error)
    return unfinished


def gaussian_pair(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows ``(count, 2)`` of a normal with correlation 0.9, and their exact log-densities."""
    e = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    rows = torch.stack((e[:, 0], 0.9 * e[:, 0] + math.sqrt(0.19) * e[:, 1]), 1)
    return rows, -0.5 * e.double().square().sum(1) - math.log(2 * math.pi) - 0.5 * math.log(0.19)


def _linear(experiment: Experiment) -> None:
    """Train the linear form on a normal distribution and follow its objective, an importance estimate and the true value."""
    train, _ = gaussian_pair(experiment.choose(smoke=200, quick=10_000, full=50_000), 0)
    test, truth = gaussian_pair(experiment.choose(smoke=50, quick=500, full=2000), 1)
    draws = experiment.choose(smoke=4, quick=128, full=1024)
    checks = experiment.choose(smoke=(1, 2), quick=(10, 30, 100, 300, 1000, 2000), full=(10, 100, 1000, 10_000))

    def follow() -> dict[str, list[float]]:
        torch.manual_seed(0)
        model = AEF(2, latent=1, form="linear", hidden=(32, 32), activation="tanh")
        model.initialize(train)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        generator = torch.Generator().manual_seed(0)
        found: dict[str, list[float]] = {"objective": [], "estimate": [], "effective": []}
        for step in range(1, checks[-1] + 1):
            optimizer.zero_grad()
            model.loss(train[torch.randint(len(train), (128,), generator=generator)]).backward()
            optimizer.step()
            if step in checks:
                with torch.no_grad():
                    found["objective"].append(model.evaluate(test).value.double().mean().item())
                scale = max(
                    (0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
                    key=lambda scale: (
                        model.importance_estimate(train[: len(test)], scale, samples=draws)[0]
                        .value.double()
                        .mean()
                        .item()
                    ),
                )
                estimate, effective = model.importance_estimate(test, scale, samples=draws)
                found["estimate"].append(estimate.value.double().mean().item())
                found["effective"].append(effective.mean().item())
        return found

    found, exact = experiment.measure("linear", follow), truth.mean().item()
    figure = experiment.figure(6, 4)
    axes = figure.subplots()
    axes.plot(checks, found["objective"], marker="o", label="objective, on the extended space")
    axes.plot(checks, found["estimate"], marker="s", label="importance estimate of log p(x), a lower bound")
    reported = [value + math.log(draws) for value in found["estimate"]]
    axes.plot(checks, reported, linestyle=":", label="the estimate without - log K, as in the reference code")
    axes.axhline(exact, color="black", linewidth=1, label="true mean log-density")
    axes.set(xscale="log", xlabel="steps", ylabel="nats")
    axes.legend(fontsize=8, loc="center right")
    experiment.picture("linear", figure)
    experiment.report(
        "the linear form maximizes a likelihood of the data",
        paper="implied by the first version's title (exact maximum likelihood)",
        ours=f"objective {found['objective'][-1]:.2f}, importance estimate {found['estimate'][-1]:.2f}, truth {exact:.2f} nats",
        confirmed=abs(found["objective"][-1] - exact) < 0.05,
        seeds=1,
        note=f"the objective is log p(x) + log p(u | x), on an extended space; the best of 6 scales for training rows, {draws} draws, effective number "
        f"{found['effective'][-1]:.0f}; criterion: an objective within 0.05 nats of the truth",
    )


class _Builders:
    """Builders of an AEF and of a VAE with the same preprocessing, encoder, decoder, posterior flow and prior."""

    def __init__(self, shape: tuple[int, ...], latent: int, channels: tuple[int, ...], flows: dict[str, Any]) -> None:
        self.shape, self.latent, self.channels, self.flows = shape, latent, channels, flows

    def prior(self) -> Distribution:
        return prior_distribution(MAF(self.latent, standardize=False, **self.flows), self.latent)

    def aef(self, form: str = "partition") -> Model:
        return AEF(
            self.shape, self.latent, form=form, channels=self.channels, posterior="iaf", posterior_layers=self.flows["layers"],
            posterior_hidden=self.flows["hidden"], prior=self.prior(),
        )  # fmt: skip

    def vae(self) -> Model:
        flow = posterior_flow("iaf", self.latent, self.flows["layers"], self.flows["hidden"], 0)
        inner = Variational(self.shape, self.latent, GaussianLikelihood(), flow, channels=self.channels)
        return Flow(Chain(*pixel_transforms(self.shape, 256, 0.0, "uniform"), ActNorm(self.shape), inner), self.prior())

    def autoencoder(self) -> Model:
        return AutoEncoder(self.shape, self.latent, channels=self.channels)


_WIDE = (64, 128), {"layers": 4, "hidden": (256, 256)}
"""Channels, and flows, as in the paper's small networks."""


def _builders(experiment: Experiment, shape: tuple[int, ...], latent: int, wide: bool = False) -> _Builders:
    narrow: tuple[tuple[int, ...], dict[str, Any]] = experiment.choose(
        smoke=((4, 8), {"layers": 1, "hidden": (8,)}), quick=((16, 32), {"layers": 2, "hidden": (64,)}), full=_WIDE
    )
    return _Builders(shape, latent, *(_WIDE if wide else narrow))


def _options(experiment: Experiment) -> dict[str, Any]:
    return {
        "max_steps": experiment.choose(smoke=2, quick=700, long=10_000, full=100_000), "batch_size": 128, "patience": None,
        "evaluate_every": experiment.choose(smoke=2, quick=350, long=1000, full=1000),
    }  # fmt: skip


def _parts(experiment: Experiment, name: str) -> tuple[Tensor, Tensor, Tensor]:
    return experiment.image_parts(
        name,
        rows=experiment.choose(smoke=150, quick=30_000, full=60_000),
        held_out=experiment.choose(smoke=50, quick=500, full=5000),
        test=experiment.choose(smoke=30, quick=500, long=1000, full=10_000),
    )


Curves = dict[str, list[list[tuple[int, float]]]]
"""For each model and seed the bits/dim of held-out images, from one draw, after so many steps."""


def _images(experiment: Experiment, name: str, latent: int, wide: bool = False) -> tuple[Curves, Callable[[], None]]:
    """Compare an AEF and a VAE in likelihood, reconstructions and samples; ``wide`` for networks of the paper's size.

    Returns:
        The curves of the trainings, and a function that draws images of the models of the first seed whose weights are there, or of
        seed 0.
    """
    train, held_out, test = _parts(experiment, name)
    shape = tuple(test.shape[1:])
    builders = _builders(experiment, shape, latent, wide)
    setting, networks = (
        f"{'wide ' if wide else ''}{name} {latent}",
        "with networks of the paper's size, " if wide else "",
    )
    models: dict[str, Callable[[], Model]] = {"AEF": builders.aef, "VAE": builders.vae}
    # More draws tighten both bounds (both models dequantize, and the VAE draws its code), so both get the same number.
    draws = experiment.choose(smoke=2, quick=64, long=128, full=128)
    options = _options(experiment)
    bits: dict[str, list[float]] = {kind: [] for kind in models}
    single: dict[str, list[float]] = {kind: [] for kind in models}
    errors: dict[str, list[float]] = {kind: [] for kind in models}
    shells: dict[str, list[float]] = {kind: [] for kind in models}
    distances: dict[str, list[float]] = {kind: [] for kind in models}
    facts: dict[str, dict[str, float]] = {}
    curves: Curves = {kind: [] for kind in models}
    every: dict[int, dict[str, Trained[Model]]] = {}
    shell = torch.ones(math.prod(shape), dtype=torch.bool)
    shell[core_of(shape, latent, "center")] = False
    features = principal(train)
    last = f"bits of {draws}"  # measured last, so that a seed counts with all of its measurements
    for seed in experiment.in_time(
        experiment.repeats, lambda seed: [f"{setting} {kind} {seed} {last}" for kind in models]
    ):
        for kind, build in models.items():
            key = f"{setting} {kind} {seed}"
            trained = experiment.trained(key, build, train, held_out, seed=seed, curve=True, **options)
            facts[kind] = trained.facts
            curves[kind].append(
                [(step, -nats / math.prod(shape) / math.log(2)) for step, nats in trained.facts["curve"]]
            )
            tests: dict[str, Callable[[Model], Any]] = {
                "bits of 1": partial(bits_per_dim, images=test),
                "errors": partial(_errors, images=test, shell=shell),
                "distance": lambda model: mmd(features(_new(model, latent, len(test))), features(test)).item(),
                last: partial(bits_per_dim, images=test, samples=draws),
            }
            found = {
                what: experiment.measure(f"{key} {what}", lambda trained=trained, score=score: score(trained.model))
                for what, score in tests.items()
            }
            bits[kind].append(found[last])
            single[kind].append(found["bits of 1"])
            errors[kind].append(found["errors"][0])
            shells[kind].append(found["errors"][1])
            distances[kind].append(found["distance"])
            every.setdefault(seed, {})[kind] = trained
    floor = mmd(features(train[-len(test) :]), features(test)).item()
    sizes = ", ".join(f"{kind} {found['parameters']:,.0f} parameters" for kind, found in facts.items())
    experiment.report(
        f"{networks}a partition AEF has the higher likelihood than a VAE of the same networks at {latent} latents, on {name}",
        paper="plots only",
        ours=f"{spread(bits['AEF'])} against {spread(bits['VAE'])} bits/dim",
        confirmed=clearly_below(bits["AEF"], bits["VAE"]),
        seeds=len(bits["AEF"]),
        note=f"both are lower bounds on the probability of the same 8-bit images, from {draws} draws each; from one draw "
        f"{spread(single['AEF'])} against {spread(single['VAE'])}; {options['max_steps']:,} steps of 128; lead of the AEF on held-out images, from one "
        f"draw, {_leads(curves)}; {sizes}",
    )
    experiment.report(
        f"{networks}its reconstructions are nearer to the images at {latent} latents, on {name}",
        ours=f"root mean square error {spread(errors['AEF'], 1)} against {spread(errors['VAE'], 1)} gray levels; outside the "
        f"core {spread(shells['AEF'], 1)} against {spread(shells['VAE'], 1)}",
        confirmed=clearly_below(errors["AEF"], errors["VAE"]),
        seeds=len(errors["AEF"]),
        note=f"errors of the decoder's mean at the code of a test image, for the VAE the center of the code; the AEF's decoder computes the "
        f"shell, and the encoder computes the core of {latent} pixels from the shell",
    )
    experiment.report(
        f"{networks}its samples are nearer to the images at {latent} latents, on {name}",
        paper="plots of FID",
        ours=f"squared kernel distance {spread(distances['AEF'], 4)} against {spread(distances['VAE'], 4)}",
        confirmed=clearly_below(distances["AEF"], distances["VAE"]),
        seeds=len(distances["AEF"]),
        note=f"to test images in 30 whitened principal components, not FID, where as many training images have {floor:z.4f}; decoder means of "
        "codes from the prior",
    )
    shown = next(
        (
            pair
            for pair in every.values()
            if all(experiment.model_file(trained.key).exists() for trained in pair.values())
        ),
        every[min(every)],
    )
    return curves, partial(_draw_images, experiment, f"{'wide-' if wide else ''}{name}-{latent}", shown, test, latent)


def _draw_images(
    experiment: Experiment, name: str, shown: Mapping[str, Trained[Model]], test: Tensor, latent: int
) -> None:
    """Draw test images, and of each model their reconstructions and samples."""
    if experiment.keeps_picture(name, shown.values()):
        return
    pictures: dict[str, Tensor] = {"test": test[:12]}
    for kind, trained in shown.items():
        pictures[f"{kind} reconstructions"] = _clean(trained.model, test[:12])
        pictures[f"{kind} samples"] = _new(trained.model, latent, len(test))[:12]
    experiment.strip(name, pictures)


def _leads(curves: Curves) -> str:
    """By how much the AEF is ahead of the VAE after a tenth, a half, and the whole of the training."""
    count = len(curves["AEF"][0])
    texts = []
    for index in sorted({max(1, (count - 1) // 10), (count - 1) // 2, count - 1} - {0}):
        leads = [vae[index][1] - aef[index][1] for aef, vae in zip(curves["AEF"], curves["VAE"], strict=True)]
        texts.append(f"{spread(leads)} after {curves['AEF'][0][index][0]:,} steps")
    return ", ".join(texts) + " (bits/dim)"


def _draw_curves(experiment: Experiment, found: Mapping[tuple[str, int], Curves], picture: str = "curves") -> None:
    """Draw the bits/dim of held-out images against the steps of training, one panel for each set and number of latents."""
    names = list(dict.fromkeys(name for name, _ in found))
    latents = list(dict.fromkeys(latent for _, latent in found))
    figure = experiment.figure(2.6 * len(latents) + 0.4, 2.4 * len(names))
    grid = figure.subplots(len(names), len(latents), squeeze=False)
    for (name, latent), curves in found.items():
        axes = grid[names.index(name), latents.index(latent)]
        for color, (kind, runs) in zip(("C0", "C1"), curves.items(), strict=True):
            for seed, run in enumerate(runs):
                steps, bits = zip(*run[1:], strict=True)  # without the start
                axes.plot(steps, bits, ".-", color=color, lw=0.8, ms=3, label=kind if seed == 0 else None)
        axes.set_title(f"{name}, {latent} latents", fontsize=8)
        axes.tick_params(labelsize=7)
    for axes in grid[-1]:
        axes.set_xlabel("steps", fontsize=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("held-out bits/dim", fontsize=8)
    grid[0, 0].legend(fontsize=7)
    experiment.picture(picture, figure)


def noisy(images: Tensor, level: float, seed: int) -> Tensor:
    """Images ``(n, channels, height, width)`` with normal noise of this many gray levels, rounded and clipped to 0, ..., 255."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images + level * noise).round().clamp(0, 255).to(images.dtype)


def _denoising(experiment: Experiment, name: str, latent: int) -> list[UnfinishedError]:
    """Train on noisy images alone, and compare reconstructions of noisy test images with the images without noise.

    Returns:
        The error of the first seed that is not finished, after the report of the others; empty if there is none.
    """
    train, held_out, test = _parts(experiment, name)
    builders = _builders(experiment, tuple(test.shape[1:]), latent)
    models: dict[str, Callable[[], Model]] = {
        "AEF": builders.aef, "linear AEF": partial(builders.aef, "linear"), "VAE": builders.vae, "autoencoder": builders.autoencoder,
    }  # fmt: skip
    levels = experiment.choose(smoke=(0.5,), quick=(0.5,), long=(0.5,), full=(0.25, 0.5, 0.75, 1.0))
    texts, better, counts, noised, unfinished = [], [], [], test[:0], None
    shown: dict[str, Trained[Model]] = {}
    for level in levels:
        parts = [noisy(part, 255 * level, 10 + index) for index, part in enumerate((train, held_out, test))]
        errors: dict[str, list[float]] = {kind: [] for kind in models}
        for seed in experiment.few(1, long=3):
            try:
                found = {kind: _denoised(experiment, f"{name} {latent} noise {level} {kind} {seed}", build, parts, test, seed)
                         for kind, build in models.items()}  # fmt: skip
            except UnfinishedError as error:
                if not errors["VAE"] or len(levels) > 1:
                    raise
                unfinished = error  # report the seeds that are finished
                break
            for kind, (trained, distance) in found.items():
                errors[kind].append(distance)
                if seed == 0 and level == 0.5:
                    shown[kind], noised = trained, parts[2][:12]
        own = (parts[2].double() - test).square().mean().sqrt().item()
        texts.append(
            f"noise {level:g}: {', '.join(f'{kind} {spread(values, 1)}' for kind, values in errors.items())}, the noisy images {own:.1f}"
        )
        better.append(clearly_below(errors["linear AEF"], errors["VAE"]))
        counts.append(len(errors["VAE"]))
    if not experiment.keeps_picture(f"noise-{name}-{latent}", shown.values()):
        cleaned = {kind: _clean(trained.model, noised) for kind, trained in shown.items()}
        experiment.strip(f"noise-{name}-{latent}", {"test": test[:12], "noisy": noised} | cleaned)
    experiment.report(
        f"the linear form removes noise better than a VAE at {latent} latents, on {name}",
        paper="a table of distances in features of an Inception network",
        ours="root mean square distance to the images without noise, gray levels; " + "; ".join(texts),
        confirmed=all_hold(better),
        seeds=min(counts),
        note="trained on noisy images alone, with one draw of the noise for each image; noise in units of 255 gray levels, rounded and "
        f"clipped; the decoder's mean at the center of the code; {_options(experiment)['max_steps']:,} steps of 128"
        + ("; the other seeds are not finished" if unfinished else ""),
    )
    return [unfinished] if unfinished else []


def _denoised(
    experiment: Experiment, key: str, build: Callable[[], Model], parts: Sequence[Tensor], test: Tensor, seed: int
) -> tuple[Trained[Model], float]:
    """A model of noisy images, and the distance of the noisy test images that it cleaned to those without noise."""
    trained = experiment.trained(key, build, *parts[:2], seed=seed, **_options(experiment))
    return trained, experiment.measure(f"{key} error", lambda: _distance(trained.model, parts[2], test))


def _clean(model: Model, images: Tensor) -> Tensor:
    """The decoder's mean at the center of the code."""
    with torch.no_grad():
        last = list(model.chain)[-1] if isinstance(model, Flow) else None
        if isinstance(last, Variational):
            front = model.chain[:-1]
            return model.decode(last.center(front.encode(images.float()).z))
        return _reconstruct(model, images)


def _distance(model: Model, images: Tensor, target: Tensor) -> float:
    """Root mean square distance of the cleaned images to a target, gray levels."""
    parts = zip(images.split(250), target.split(250), strict=True)
    return torch.cat([(_clean(model, part) - other).double().square() for part, other in parts]).mean().sqrt().item()


def _reconstruct(model: Model, images: Tensor) -> Tensor:
    with torch.no_grad():
        if isinstance(model, AEF):
            return model.reconstruct(images)
        return model.decode(model.encode(images))


def _new(model: Model, latent: int, count: int) -> Tensor:
    """Images decoded from codes of the prior, without the decoder's noise."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        noise = model.base.sample(torch.Size((count,)), generator=generator)
        drawn = model.decode_mean(noise[..., :latent]) if isinstance(model, AEF) else model.decode(noise)
    return drawn.clamp(0, 255)


def _errors(model: Model, images: Tensor, shell: Tensor) -> tuple[float, float]:
    """Root mean square error of reconstructions, of all pixels and of those of the shell."""
    squares = torch.cat([(_clean(model, part) - part).double().square() for part in images.split(250)]).flatten(1)
    return squares.mean().sqrt().item(), squares[:, shell].mean().sqrt().item()
