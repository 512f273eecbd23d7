"""Conformal embedding flows (Ross and Cresswell 2021): sphere, Swiss roll and images."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from papers.experiment import Experiment, spread
from papers.flows.against_time import Found, draw, pictures, report_ahead, report_peers, run_contenders, sample_distance
from papers.flows.glow_setting import PEERS, glow, glow_peers
from papers.flows.timed_training import Contender, Pictures
from papers.reproduction import reproduction
from papers.surfaces.manifolds import compare, sphere, swiss_roll, train_in_phases
from pushforward.detection.metrics import auroc
from pushforward.detection.scores import ManifoldLikelihood
from pushforward.distributions import StudentT
from pushforward.models import ConformalEmbeddingFlow, ManifoldModel, Model, RealNVP, RectangularFlow
from pushforward.numerics import batch_jacobian
from pushforward.transforms import (
    ActNorm,
    AffineTransformer,
    Chain,
    ConformalEmbedding,
    ConformalScale,
    Flatten,
    ImageCoupling,
    Inverse,
    InvertibleConv1x1,
    OrthogonalEmbedding,
    PiecewiseOrthogonal,
    Squeeze,
    Transform,
    UniformDequantize,
)

__all__ = ["NoisyPixels", "code_flow", "flat_embedding", "images_embedding", "run", "thick_bits"]


@reproduction(
    "cef",
    "Tractable Density Estimation on Learned Manifolds with Conformal Embedding Flows (Ross, Cresswell 2021, arXiv 2106.05275)",
    data=("mnist", "fashion-mnist", "cifar10"),  # the last: long and full
    full="four hours on 16 cores (estimate)",
)
def run(experiment: Experiment) -> None:
    """Test a sphere with a known distribution, a surface that is not a sphere, and images.

    A long or full run also compares joint training, training in sequence and flows of all pixels at equal CPU time.
    """
    _sphere(experiment)
    _roll(experiment)
    _images(experiment)
    _volume_cost(experiment)
    if experiment.budget != "quick":
        _against_time(experiment)


class Sphere:
    """The study of the sphere: a mixture of three von Mises-Fisher distributions, learned on the surface and in space."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.target = experiment, sphere()
        self.rows = self.target.sample(experiment.choose(smoke=100, quick=20_000, full=100_000), 0)
        self.steps = experiment.choose(smoke=2, quick=3000, full=20_000)
        self.width = experiment.choose(smoke=(8,), quick=(64, 64), full=(128, 128))

    def train(self, method: str, seed: int) -> Model:
        """The model of a method: "joint", "sequential" or "ambient"."""
        shared: dict[str, Any] = {"seed": seed, "learning_rate": 5e-3}
        key = f"sphere {method} {seed}"
        if method == "ambient":
            make = partial(RealNVP, 3, layers=8, hidden=self.width)
            return self.experiment.train(key, make, self.rows, None, max_steps=self.steps, **shared)[0]
        halves = {"manifold": self.steps // 2, "density": self.steps // 2 + 1}
        phases = {"joint": self.steps} if method == "joint" else halves
        return train_in_phases(self.experiment, key, self._conformal, self.rows, phases, **shared)

    def _conformal(self) -> ConformalEmbeddingFlow:
        # Codes of a density on the whole sphere have heavy tails; those of the uniform density are bivariate t with 2 degrees of freedom.
        return ConformalEmbeddingFlow(3, 2, hidden=self.width, layers=8, base=StudentT(2, 3.0))

    def compare(self, method: str, seed: int) -> dict[str, float]:
        """The distance of a model from the truth, and the mass of its density on the sphere, by a fine grid."""
        cells, choose = 20, self.experiment.choose
        fine, area = self.target.grid(cells, choose(smoke=1, quick=8, full=16))
        everywhere = self.target.point(fine).float()
        model = self.train(method, seed)
        entry = compare(
            self.target, model, cells=cells, seed=seed, test=choose(smoke=50, quick=10_000, full=50_000),
            count=choose(smoke=200, quick=100_000, full=400_000),
        )  # fmt: skip
        with torch.no_grad():
            each = torch.cat([model.evaluate(part).value.double().exp() for part in everywhere.split(20_000)])
        return {**entry, "mass": (each.sum() * area).item()}

    def draw(self) -> None:
        """Save a picture of the densities over height and angle."""
        figure = self.experiment.figure(8, 2.4)
        u, _ = self.target.grid(self.experiment.choose(smoke=8, quick=120, full=300))
        side = round(len(u) ** 0.5)
        with torch.no_grad():
            densities = {"truth": self.target.chart_log_density(u).exp()}
            densities |= {
                method: self.train(method, 0).evaluate(self.target.point(u).float()).value.double().exp()
                for method in ("joint", "sequential")
            }
        for axes, (method, values) in zip(figure.subplots(1, len(densities)), densities.items(), strict=True):
            axes.imshow(
                values.reshape(side, side).numpy(), origin="lower", extent=(-math.pi, math.pi, -1, 1), aspect="auto", cmap="magma",
                vmin=0, vmax=densities["truth"].max().item(),
            )  # fmt: skip
            axes.set(title=method, xlabel="angle", ylabel="height", xticks=[], yticks=[])
        self.experiment.picture("sphere", figure)


def _sphere(experiment: Experiment) -> None:
    """Compare a conformal embedding trained jointly, one trained in sequence, and a flow of the space around the sphere."""
    study = Sphere(experiment)
    seeds = range(experiment.choose(smoke=1, quick=2, full=3))
    found = {
        method: [
            experiment.measure(f"sphere {method} {seed} compared", partial(study.compare, method, seed))
            for seed in seeds
        ]
        for method in ("joint", "sequential", "ambient")
    }

    def column(method: str, what: str) -> list[float]:
        return [entry[what] for entry in found[method]]

    gaps = {method: [entry["truth"] - entry["nats"] for entry in found[method]] for method in ("joint", "sequential")}
    floor = column("joint", "floor")[0]
    experiment.report(
        "trained jointly, a conformal embedding learns the sphere and the distribution on it",
        ours="; ".join(
            f"{method}: KL {spread(gaps[method])} nats, total variation {spread(column(method, 'tv'))}, mass {spread(column(method, 'mass'))}, squared "
            f"residual {max(column(method, 'residual')):.1e}" for method in gaps
        ),
        confirmed=max(gaps["joint"]) < 0.02 and all(abs(mass - 1) < 0.01 for mass in column("joint", "mass")),
        seeds=len(found["joint"]),
        note=f"a mixture of three von Mises-Fisher distributions; a Student-t base; truth {column('joint', 'truth')[0]:.3f} nats, floor of the total variation {floor:.3f}; "
        f"{study.steps:,} steps of 512 rows; criterion: KL below 0.02, mass within 1 %",
    )  # fmt: skip
    experiment.report(
        "an ambient flow learns the sphere worse than a flow on it",
        ours=f"total variation {spread(column('joint', 'tv'))} against {spread(column('ambient', 'tv'))}; median distance of its samples "
        f"to the sphere {spread(column('ambient', 'distance'))}, of the conformal flow's {max(column('joint', 'distance')):.0e}",
        confirmed=max(column("joint", "tv")) < min(column("ambient", "tv")) - floor,
        seeds=len(found["joint"]),
        note=f"floor {floor:.3f}; equal steps; criterion: by more than the floor",
    )
    study.draw()


def principal_residual(train: Tensor, test: Tensor, dim: int) -> float:
    """Mean squared distance of test rows to the first principal components of the training rows."""
    train, test = train.double().flatten(1), test.double().flatten(1)
    center = train.mean(0)
    _, axes = torch.linalg.eigh((train - center).T @ (train - center))
    rows = test - center
    return (rows.square().sum(1) - (rows @ axes[:, -dim:]).square().sum(1)).mean().item()


def _roll(experiment: Experiment) -> None:
    """Compare reconstructions on a surface with an isometric chart that is neither a sphere nor a plane."""
    target = swiss_roll()
    train = target.sample(experiment.choose(smoke=100, quick=10_000, full=50_000), 0)
    test = target.sample(experiment.choose(smoke=100, quick=5000, full=20_000), 1)
    steps = experiment.choose(smoke=2, quick=1500, full=10_000)
    width = experiment.choose(smoke=(8,), quick=(64, 64), full=(64, 64))
    makers: dict[str, Callable[[], ManifoldModel]] = {
        "conformal": lambda: ConformalEmbeddingFlow(3, 2),
        "free networks": lambda: RectangularFlow(3, 2, decoder="free-form", hidden=width),
    }
    found: dict[str, list[float]] = {}
    for name, make in makers.items():
        found[name] = []
        for seed in range(experiment.choose(smoke=1, quick=2, full=3)):
            model = train_in_phases(
                experiment, f"roll {name} {seed}", make, train, {"manifold": steps}, seed=seed, learning_rate=5e-3
            )
            with torch.no_grad():
                found[name].append(model.evaluate(test).residual.double().mean().item())  # pyright: ignore[reportOptionalMemberAccess]
    plane = principal_residual(train, test, 2)
    total = test.double().var(0).sum().item()
    experiment.report(
        "a conformal embedding without pieces can represent only spheres and planes (Liouville)",
        ours=f"mean squared distance to the Swiss roll's surface: conformal {spread(found['conformal'], 4)}, two principal components "
        f"{plane:.4f}, free networks {spread(found['free networks'], 4)}",
        confirmed=min(found["conformal"]) > 10 * max(found["free networks"]),
        seeds=len(found["conformal"]),
        note=f"reconstruction only, {steps:,} steps; total variance {total:.2f}; a limit that the method's own theory predicts, not a "
        "claim of the paper; criterion: with every seed more than ten times that of free networks",
    )


def images_embedding(side: int, latent: int) -> ConformalEmbedding:
    """Conformal steps for one-channel images: 4 x 4 pixels become channels, half of them are dropped, the rest becomes d codes."""
    quarter = side // 4
    blocks, half = (16, quarter, quarter), (8, quarter, quarter)
    return ConformalEmbedding(
        ConformalScale((1, side, side)), Squeeze((1, side, side)), Squeeze((4, side // 2, side // 2)),
        PiecewiseOrthogonal(blocks), OrthogonalEmbedding(blocks, 8), PiecewiseOrthogonal(half), Flatten(half),
        OrthogonalEmbedding(8 * quarter * quarter, latent),
    )  # fmt: skip


def _volume_cost(experiment: Experiment) -> None:
    """CPU seconds of the volume of an embedding of images by its scales, and by its Jacobian."""
    dims, count = experiment.choose(smoke=(2, 4), quick=(2, 32, 128), full=(2, 32, 128)), 64
    found = [
        experiment.measure(f"volume with {latent} codes", partial(_volume_times, experiment, latent, count))
        for latent in dims
    ]
    experiment.report(
        "the volume of a conformal embedding costs little beside its Jacobian",
        ours="; ".join(
            f"d = {latent}: {1000 * each['decode']:.1f} ms to decode, {1000 * each['volume']:.1f} ms with the volume, {1000 * each['jacobian']:.0f} ms by the Jacobian"
            for latent, each in zip(dims, found, strict=True)
        ),
        confirmed=all(
            each["volume"] < 2 * each["decode"] and each["volume"] < 0.5 * each["jacobian"] for each in found
        ),
        seeds=1,
        note=f"median CPU time for {count} images of 784 pixels, without gradients; criterion: less than twice the time to decode, and than half the time by the Jacobian; "
        f"the two volumes differ by {max(each['error'] for each in found):.1g} nats at most",
    )


def _volume_times(experiment: Experiment, latent: int, count: int) -> dict[str, float]:
    """Seconds to decode, to decode with the volume, and to find the volume by the Jacobian; and the difference of the volumes, nats."""
    torch.manual_seed(0)
    embedding = images_embedding(28, latent).double()
    z = torch.randn(count, latent, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def gram() -> Tensor:
        jacobian = batch_jacobian(embedding.decode, z)[1]
        return 0.5 * torch.linalg.slogdet(jacobian.mT @ jacobian).logabsdet

    ways: dict[str, Callable[[], Any]] = {
        "decode": lambda: embedding.decode(z),
        "volume": lambda: embedding.decode_with_volume(z),
        "jacobian": gram,
    }
    with torch.no_grad():
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(experiment.choose(smoke=2, quick=8, full=20)):  # in turn, so that a busy moment slows all
            for name, way in ways.items():
                start = time.process_time()
                way()
                times[name].append(time.process_time() - start)
        found = {name: statistics.median(each[1:]) for name, each in times.items()}
        found["error"] = (embedding.decode_with_volume(z)[1] - gram()).abs().max().item()
    return found


def _images(experiment: Experiment) -> None:
    """Compare reconstructions of Fashion-MNIST with principal components, and detect MNIST as anomalies."""
    latent, n_held_out = 32, experiment.choose(smoke=50, quick=1000, full=5000)
    images = experiment.images(
        "fashion-mnist", train=True, rows=experiment.choose(smoke=150, quick=10_000, full=60_000)
    ).float()
    train, reference = images[:-n_held_out], images[-n_held_out:]
    inside = experiment.images(
        "fashion-mnist", train=False, rows=experiment.choose(smoke=50, quick=2000, full=10_000)
    ).float()
    outside = experiment.images("mnist", train=False, rows=experiment.choose(smoke=50, quick=2000, full=10_000)).float()

    def make() -> ConformalEmbeddingFlow:
        width = experiment.choose(smoke=(8,), quick=(128,), full=(512, 512))
        return ConformalEmbeddingFlow((1, 28, 28), latent, embedding=images_embedding(28, latent), layers=4, hidden=width,
                                      reconstruction_weight=experiment.choose(smoke=1.0, quick=1e-3, full=1e-3))  # fmt: skip

    steps = experiment.choose(smoke=1, quick=500, full=20_000)
    model = train_in_phases(
        experiment,
        "images",
        make,
        train,
        {"manifold": steps, "joint": steps},
        learning_rate=5e-3,
        batch_size=experiment.choose(smoke=20, quick=256, full=512),
    )

    def facts() -> dict[str, float]:
        with torch.no_grad():
            residual = model.evaluate(inside).residual.double().mean().item()  # pyright: ignore[reportOptionalMemberAccess]
        entry = {"residual": residual, "principal": principal_residual(train, inside, latent)}
        for use in ("density", "residual", "both"):
            score = ManifoldLikelihood(model, use=use).fit(reference)
            entry[f"auroc {use}"] = auroc(score(inside), score(outside))
        return entry

    found = experiment.measure("images compared", facts)
    experiment.report(
        "a conformal embedding of images reconstructs about as well as principal components of the same dimension",
        ours=f"squared residual {found['residual']:.3g} against {found['principal']:.3g} with d = {latent}, in squared gray levels",
        confirmed=found["residual"] < 1.5 * found["principal"],
        seeds=1,
        note="Fashion-MNIST; two piecewise layers on 4 x 4 blocks; not a claim of the paper, which shows no such comparison; criterion: "
        "at most 1.5 times as large",
    )
    experiment.report(
        "the distance to the manifold detects images unlike the training data better than the density on it",
        ours=", ".join(f"{use} {found[f'auroc {use}']:.3f}" for use in ("density", "residual", "both"))
        + " AUROC, Fashion-MNIST against MNIST",
        confirmed=found["auroc residual"] > found["auroc density"],
        seeds=1,
        note="fitted on in-distribution images alone, one seed; criterion: the higher figure",
    )


def flat_embedding(shape: tuple[int, ...]) -> ConformalEmbedding:
    """Conformal steps for images without pieces: orthonormal combinations of the pixels of blocks, fewer than pixels.

    4 x 4 blocks keep half of their numbers (a quarter for gray images), and if the sides allow it 8 x 8 blocks then keep a third.
    """
    parts: list[Transform] = [ConformalScale(shape), Squeeze(shape)]
    parts.append(Squeeze(parts[-1].out_shape))
    for share in (2 if shape[0] == 3 else 4, 3):
        inside = parts[-1].out_shape
        parts.append(OrthogonalEmbedding(inside, inside[0] // share))
        kept = parts[-1].out_shape
        if share == 3 or any(side % 2 for side in kept[1:]):
            break
        parts.append(Squeeze(kept))
    return ConformalEmbedding(*parts, Flatten(parts[-1].out_shape))


def code_flow(shape: tuple[int, ...], layers: int, hidden: tuple[int, ...]) -> Transform:
    """A flow of the codes of an embedding that ends with ``Flatten(shape)``: layers of Glow at one scale, without squeeze."""
    parts: list[Transform] = [Inverse(Flatten(shape))]
    for k in range(layers):
        parts += [
            ActNorm(shape),
            InvertibleConv1x1(shape, seed=k),
            ImageCoupling(shape, AffineTransformer(3.0), hidden=hidden),
        ]
    return Chain(*parts, Flatten(shape))


class NoisyPixels(ConformalEmbeddingFlow):
    """A conformal embedding flow of 8-bit images, which trains with the uniform noise of dequantization."""

    def loss(self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """As that of its class, of pixels plus noise from 0 to 1."""
        return super().loss(x + torch.rand(x.shape, generator=generator, dtype=x.dtype), context, generator=generator)


def thick_bits(model: ManifoldModel, rows: Tensor, reference: Tensor) -> float:
    """Bits/dim of images under the density on a flat manifold times a normal density of the way to it, which is a density of all pixels.

    -log2 p(x) = -log2 p_manifold(x) - log2 N(x - g(g+(x)); 0, v I), in D - d directions, per pixel. It is a density because
    the manifold of an embedding without pieces is flat, so both parts are of orthogonal coordinates.

    Args:
        model: with a flat embedding of 8-bit images.
        rows: images.
        reference: training images, whose mean squared distance chooses v.
    """
    noise = UniformDequantize(model.shape, 256)
    size, rest = math.prod(model.shape), math.prod(model.shape) - math.prod(model.embedding.out_shape)

    def parts(images: Tensor) -> tuple[Tensor, Tensor]:
        found = [model.evaluate(256 * noise.encode(part.float()).z) for part in images.split(250)]
        residuals = [each.residual for each in found if each.residual is not None]
        return torch.cat([each.value for each in found]).double(), torch.cat(residuals).double()

    with torch.no_grad():
        variance = parts(reference)[1].mean() / rest
        value, residual = parts(rows)
    nats = value - residual / (2 * variance) - 0.5 * rest * torch.log(2 * math.pi * variance)
    return -nats.mean().item() / (size * math.log(2))


JOINT, SEQUENCE = "conformal, joint", "conformal, in sequence"


def _against_time(experiment: Experiment) -> None:
    """Compare an embedding trained jointly, one trained in sequence, and flows of all pixels, at equal CPU time."""
    images = pictures(experiment)
    latent, size = flat_embedding(images.shape).out_shape[0], math.prod(images.shape)
    # With this weight the loss of joint training is the negative log-likelihood of thick_bits at that variance.
    principal = experiment.measure(
        "against time principal residual",
        lambda: principal_residual(images.train, images.train, latent) / (size - latent),
    )
    options = _embedding_options(experiment, images, weight=0.5 / max(principal, 1.0))
    found = run_contenders(experiment, [
        Contender(JOINT, phases=(("joint", 1.0),), **options),
        Contender(SEQUENCE, phases=(("manifold", 0.5), ("density", 1.0)), **options),
        glow(experiment, images.shape, "1x1"),
        *glow_peers(experiment, images.shape),
    ])  # fmt: skip
    linear = experiment.measure(
        "against time principal test residual", lambda: principal_residual(images.train, images.test, latent) / size
    )
    errors = "; ".join(f"{name} {found.text(name, 'error', 2)}" for name in (JOINT, SEQUENCE))
    report_ahead(
        experiment, f"an embedding and the density on it are trained jointly at least as well as in sequence, at equal CPU time, on {found.images.name}",
        found, JOINT, [SEQUENCE], level=True,
        note=f"{latent:,} of {size:,} coordinates, a flat embedding; bits/dim of its density times a normal density of the way to the manifold, "
        f"whose variance training images choose (joint training minimizes it at the variance that principal components leave); root mean square errors of reconstructions in gray levels {errors}, {latent:,} principal components {math.sqrt(linear):.2f}",
    )  # fmt: skip
    _report_all_pixels(experiment, found)
    draw(experiment, found, shown=0.55)  # in sequence, the density is trained in the second half


def _embedding_options(experiment: Experiment, images: Pictures, weight: float) -> dict[str, Any]:
    """The embedding as a contender, but for its name and phases; ``weight`` is that of the reconstruction."""
    codes = list(flat_embedding(images.shape))[-1].in_shape
    width, layers = (
        experiment.choose(smoke=(4, 4), quick=(64, 64), full=(512, 512)),
        experiment.choose(smoke=1, quick=8, full=32),
    )
    reference = images.train[: experiment.choose(smoke=20, quick=500, full=2000)]

    def make() -> NoisyPixels:
        embedding = flat_embedding(images.shape)
        return NoisyPixels(
            images.shape,
            embedding.out_shape[0],
            embedding=embedding,
            flow=code_flow(codes, layers, width),
            reconstruction_weight=weight,
        )

    def bits(model: Model, rows: Tensor) -> float:
        return thick_bits(model, rows, reference)  # pyright: ignore[reportArgumentType]

    def judge(model: Model, images: Pictures) -> dict[str, float]:
        with torch.no_grad():
            found = torch.cat([model.evaluate(part.float()).residual for part in images.test.split(250)])  # pyright: ignore[reportArgumentType]
        error = math.sqrt(found.double().mean().item() / math.prod(images.shape))
        return sample_distance(model, images) | {"error": error}

    return {"make": make, "bits": bits, "judge": judge}


def _report_all_pixels(experiment: Experiment, found: Found) -> None:
    """Compare the embedding with flows of all pixels, of this library and of others."""
    names = (JOINT, SEQUENCE, "Glow 1x1")
    experiment.report(
        f"at equal CPU time, on {found.images.name}, samples of an embedding are nearer to the images than those of a flow of all pixels",
        ours="squared kernel distance " + "; ".join(f"{name} {found.text(name, 'distance', 4)}" for name in names),
        confirmed=found.below(JOINT, "Glow 1x1", "distance"),
        seeds=len(found.bits(JOINT)),
        note="to test images in 30 whitened principal components, not FID; not a claim of the paper, which compares embeddings by FID",
    )  # fmt: skip
    report_ahead(
        experiment, f"(not the paper's) at equal CPU time, on {found.images.name}, the embedding is ahead of a flow of all pixels in likelihood", found,
        JOINT, ["Glow 1x1"],
    )  # fmt: skip
    report_peers(
        experiment, "the embedding is not behind flows of all pixels of other libraries at equal CPU time", found, JOINT, PEERS,
        note="no other library has conformal embeddings",
    )  # fmt: skip
