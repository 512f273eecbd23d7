"""The same flows of images in pushforward, normflows and nflows: bits/dim and speed of training.

    python -m benchmarks.quality.images --data DATA                    # runs missing cases, then prints the table
    python -m benchmarks.quality.images --data DATA --table            # only prints the table

The data are Fashion-MNIST. Equal in all libraries are images, dequantization noise and the shift to (-1/2, 1/2); batches, Adam with a cosine
schedule, gradient clipping, the last weights; scales, steps of actnorm, 1 x 1 convolution and coupling on half of the channels;
widths and kernels of the couplings' networks, whose last layer starts at 0; channels that are factored out after each scale; and a
learned diagonal normal distribution of all coordinates as base. nflows has the transforms but no such network, so it is built
here. normflows has no spline couplings of images.

Differences that are built into a library are: the bound on the scale of affine couplings (pushforward exp(a / (1 + |a| / 3));
normflows sigmoid(a + 2) and nflows sigmoid(a + 2) + 0.001, which can only contract; "normflows, exp" has its other choice, exp(a)
without a bound); the initial 1 x 1 convolutions
(pushforward and normflows a random rotation, nflows a random permutation); bounds of splines, as in
``benchmarks.quality.peers``; and pushforward clamps what networks see to [-10, 10].

"Glow of the library" is ``pf.models.Glow``, which predicts a normal distribution of the factored-out channels from the others by a
convolution, as in the paper; it is not part of the comparison at equal architecture.

"PixelCNN" runs the sampling benchmark of ``benchmarks.quality.pixelcnn``.

All libraries of a case train in turn, one block of steps each, so that other work on the machine affects them equally. Times are CPU
times of the process; a ratio is the median over blocks.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pushforward as pf
from benchmarks.common.datasets import load_images
from benchmarks.common.results import Record, Results, footer, markdown
from benchmarks.quality.pixelcnn import sample, sampling_table
from pushforward.models.image.building import multi_scale

SHAPE, LEVELS, SCALES, STEPS, BINS, BOUND = (1, 28, 28), 256, 2, 4, 8, 4.0
BATCH, LEARNING_RATE, CLIP, BLOCK, START = 64, 1e-3, 5.0, 20, 512
PIXELS = math.prod(SHAPE)

LogProb = Callable[[Tensor], Tensor]
FlowAndLogProb = tuple[nn.Module, LogProb]


def pushforward_flow(case: str, width: int) -> FlowAndLogProb:
    """The flow of this library, with its log-density of dequantized images."""
    transformer = pf.transforms.AffineTransformer() if case == "Glow" else pf.transforms.SplineTransformer(BINS, BOUND)

    def block(shape: tuple[int, ...], scale: int) -> list[pf.transforms.Transform]:
        squeeze = pf.transforms.Squeeze(shape)
        inside = squeeze.out_shape
        transforms: list[pf.transforms.Transform] = [squeeze]
        for k in range(STEPS):
            mix = pf.transforms.InvertibleConv1x1(inside, seed=scale * STEPS + k)
            coupling = pf.transforms.ImageCoupling(inside, transformer, hidden=(width, width), residual=case != "Glow")
            transforms += [pf.transforms.ActNorm(inside), mix, coupling]
        return transforms

    flow = pf.models.Flow(multi_scale(SHAPE, SCALES, block), pf.distributions.Normal(PIXELS, trainable=True))
    return flow, flow.log_prob


def library_flow(case: str, width: int) -> FlowAndLogProb:
    """The model that a user calls, without its dequantization, which is the same for all libraries."""
    model: Any = pf.models.Glow(SHAPE, scales=SCALES, layers=STEPS, hidden=(width, width), alpha=None)
    transforms = list(model.chain)
    flow = pf.models.Flow(pf.transforms.Chain(*transforms[2:]), model.base)
    return flow, flow.log_prob


def normflows_flow(
    case: str,
    width: int,
    scale_map: str = "sigmoid",
    *,
    shape: tuple[int, ...] = SHAPE,
    scales: int = SCALES,
    steps: int = STEPS,
) -> FlowAndLogProb:
    """Glow of normflows, without dequantization."""
    import normflows as nf

    channels, height, side = shape
    distributions, merges, flows = [], [], []
    for i in range(scales):  # from the coarsest scale to the finest
        inside = channels * 2 ** (scales + 1 - i)
        flows.append(
            [nf.flows.GlowBlock(inside, width, scale_map=scale_map) for _ in range(steps)] + [nf.flows.Squeeze()]
        )
        merges += [nf.flows.Merge()] if i else []
        down = 2 ** (scales - i)
        leaving = inside if i == 0 else inside // 2
        distributions.append(nf.distributions.DiagGaussian((leaving, height // down, side // down)))
    flow: Any = nf.MultiscaleFlow(distributions, flows, merges, class_cond=False)
    return flow, lambda x: flow.log_prob(x, None)


class PeerNetwork(nn.Module):
    """The couplings' network: convolutions 3-1-3, or residual blocks between two 3 x 3 convolutions."""

    def __init__(self, inputs: int, outputs: int, width: int, blocks: int) -> None:
        super().__init__()
        if blocks:
            from nflows.nn.nets.resnet import ConvResidualBlock

            body = [
                nn.Conv2d(inputs, width, 3, padding=1),
                *(ConvResidualBlock(width) for _ in range(blocks)),
                nn.ReLU(),
            ]
        else:
            body = [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU()]
        last = nn.Conv2d(width, outputs, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # pyright: ignore[reportArgumentType]
        self.body = nn.Sequential(*body, last)
        self.hidden_channels = width  # nflows scales the outputs for its splines by this

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.body(x)


def nflows_flow(
    case: str,
    width: int,
    *,
    shape: tuple[int, ...] = SHAPE,
    scales: int = SCALES,
    steps: int = STEPS,
    bins: int = BINS,
    blocks: int = 2,
    factor_out: bool = True,
) -> FlowAndLogProb:
    """A flow of parts of nflows, without dequantization.

    Args:
        case: "Glow"; "NSF" for splines and residual networks; "affine NSF" for affine couplings with the networks of "NSF".
        width: of the networks.
        shape: of the images.
        scales: number of scales.
        steps: layers in each scale.
        bins: of each spline.
        blocks: residual blocks of each network, but for "Glow".
        factor_out: let half of the channels leave between scales; the base is then a learned diagonal normal distribution.
    """
    from nflows import transforms
    from nflows.distributions.normal import DiagonalNormal, StandardNormal
    from nflows.flows import Flow

    channels, height, side = shape
    whole: Any = transforms.MultiscaleCompositeTransform(scales)
    plain: list[nn.Module] = []
    for scale in range(scales):
        channels, height, side = channels * 4, height // 2, side // 2
        mask = torch.arange(channels) >= channels // 2

        def network(inputs: int, outputs: int) -> nn.Module:
            return PeerNetwork(inputs, outputs, width, 0 if case == "Glow" else blocks)

        parts: list[nn.Module] = [transforms.SqueezeTransform()]
        for _ in range(steps):
            parts += [transforms.ActNorm(channels), transforms.OneByOneConvolution(channels)]
            if case == "NSF":
                layer = transforms.PiecewiseRationalQuadraticCouplingTransform
                parts.append(layer(mask, network, num_bins=bins, tails="linear", tail_bound=BOUND))
            else:
                parts.append(transforms.AffineCouplingTransform(mask, network))
        if not factor_out:
            plain += parts
            continue
        rest = whole.add_transform(transforms.CompositeTransform(parts), (channels, height, side))
        if scale < scales - 1:
            channels, height, side = rest
    if factor_out:
        flow = Flow(whole, DiagonalNormal([math.prod(shape)]))
    else:
        flow = Flow(transforms.CompositeTransform(plain), StandardNormal([channels, height, side]))
    return flow, flow.log_prob


MAKERS = {
    "pushforward": pushforward_flow,
    "Glow of the library": library_flow,
    "normflows": normflows_flow,
    "normflows, exp": partial(normflows_flow, scale_map="exp"),
    "nflows": nflows_flow,
}
CASES = {"Glow": tuple(MAKERS), "NSF": ("pushforward", "nflows")}
SAMPLING = "PixelCNN"


class Run:
    """One library's flow under training."""

    def __init__(self, made: FlowAndLogProb, start: Tensor, steps: int) -> None:
        self.flow, self.log_prob = made
        self.flow.train()
        with torch.no_grad():
            if isinstance(self.flow, pf.models.Model):
                self.flow.initialize(start)
            else:  # the peers' actnorms are initialized by their first batch
                self.log_prob(start)
        self.optimizer = torch.optim.Adam(self.flow.parameters(), lr=LEARNING_RATE)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.seconds: list[float] = []

    def train(self, batches: list[Tensor]) -> None:
        began = time.process_time()
        for x in batches:
            self.optimizer.zero_grad()
            (-self.log_prob(x).mean()).backward()
            nn.utils.clip_grad_norm_(self.flow.parameters(), CLIP)
            self.optimizer.step()
            self.schedule.step()
        self.seconds.append((time.process_time() - began) / len(batches))

    @torch.no_grad()
    def bits(self, x: Tensor) -> float:
        self.flow.eval()
        nats = torch.cat([self.log_prob(part) for part in x.split(250)]).double().mean().item()
        return math.log2(LEVELS) - nats / (PIXELS * math.log(2))


def dequantize(images: Tensor, draw: torch.Generator) -> Tensor:
    """Gray levels with uniform noise, shifted to (-1/2, 1/2)."""
    return (images + torch.rand(images.shape, generator=draw)) / LEVELS - 0.5


def run(options: argparse.Namespace, results: Results) -> None:
    """Train and measure every case that has no record yet."""
    images = load_images("fashion-mnist", train=True, folder=options.data).float()
    test = load_images("fashion-mnist", train=False, folder=options.data)[: options.test].float()
    for seed in range(options.seeds):
        for case in options.cases:
            if case == SAMPLING:
                continue
            steps = options.steps if case == "Glow" else options.spline_steps
            key: Record = {"kind": "peers", "case": case, "seed": seed, "width": options.width, "steps": steps}
            missing = [library for library in CASES[case] if not results.where(library=library, **key)]
            if not missing:
                continue
            draw = torch.Generator().manual_seed(seed)
            start = dequantize(images[torch.randint(len(images), (START,), generator=draw)], draw)
            runs: dict[str, Run] = {}
            for library in CASES[case]:
                torch.manual_seed(seed)
                runs[library] = Run(MAKERS[library](case, options.width), start, steps)
            for _ in range(steps // BLOCK):
                rows = torch.randint(len(images), (BLOCK, BATCH), generator=draw)
                batches = [dequantize(images[row], draw) for row in rows]
                for entry in runs.values():
                    entry.train(batches)
            x = dequantize(test, draw)
            ours = runs["pushforward"].seconds
            for library, entry in runs.items():
                if library not in missing:
                    continue
                ratios = [theirs / mine for theirs, mine in zip(entry.seconds, ours, strict=True)]
                results.add(key | {
                    "library": library, "bits": entry.bits(x), "seconds_a_step": statistics.median(entry.seconds),
                    "times_ours": statistics.median(ratios),
                    "parameters": sum(weight.numel() for weight in entry.flow.parameters()),
                })  # fmt: skip


def table(options: argparse.Namespace, results: Results) -> str:
    """One row for each case and library."""
    rows, used = [], []
    for case in options.cases:
        if case == SAMPLING:
            continue
        steps = options.steps if case == "Glow" else options.spline_steps
        key = {"kind": "peers", "case": case, "width": options.width, "steps": steps}
        mine = {record["seed"]: record for record in results.where(library="pushforward", **key)}
        for library in CASES[case]:
            records = results.where(library=library, **key)
            if not records:
                continue
            used += records
            gains = [mine[record["seed"]]["bits"] - record["bits"] for record in records]
            speeds = [1 / record["seconds_a_step"] for record in records]
            ratios = [record["times_ours"] for record in records]
            alone = library == "pushforward"
            rows.append([
                case, SHOWN.get((case, library), library), f"{records[0]['parameters']:,}", spread([record["bits"] for record in records]),
                "" if alone else spread(gains), spread(speeds, 1), "" if alone else spread(ratios, 2),
            ])  # fmt: skip
    head = ["case", "library", "parameters", "bits/dim", "ours − it", "steps per CPU second", "its time / ours"]
    title = (
        f"Fashion-MNIST, {options.test:,} test images (upper bounds, equal noise), after {options.steps} steps of {BATCH} (NSF "
        f"{options.spline_steps}) with networks of width {options.width}; mean ± standard deviation over {options.seeds} seeds.\n"
    )
    align = ["---", "---", *["---:"] * 5]
    return "\n".join([title, markdown(head, rows, align), footer("python -m benchmarks.quality.images", used)])


SHOWN = {
    ("Glow", "pushforward"): "pushforward, in the peers' form",
    ("Glow", "Glow of the library"): "`pf.models.Glow`",
    ("Glow", "normflows, exp"): "normflows, scales by exp",
}


def spread(values: list[float], digits: int = 3) -> str:
    """Mean ± standard deviation of the finite values, and how many runs diverged."""
    finite = [value for value in values if math.isfinite(value)]
    lost = f" ({len(values) - len(finite)} of {len(values)} diverged)" if len(finite) < len(values) else ""
    if not finite:
        return f"–{lost}"
    more = f" ± {statistics.stdev(finite):.{digits}f}" if len(finite) > 1 else ""
    return f"{statistics.fmean(finite):.{digits}f}{more}{lost}"


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description="The same flows of images in pushforward, normflows and nflows.")
    parser.add_argument("--data", type=Path, default=os.environ.get("PUSHFORWARD_DATA"), help="data folder")
    parser.add_argument("--cases", nargs="+", default=[*CASES, SAMPLING], choices=[*CASES, SAMPLING])
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--spline-steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--test", type=int, default=1000, help="test images")
    parser.add_argument(
        "--rows", type=int, default=SHAPE[1], help="rows of the image that are sampled without the cache"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/quality-images.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table of existing results and run nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = Results(options.out)
    if not options.table:
        run(options, results)
        if SAMPLING in options.cases:
            sample(options, results)
    if set(options.cases) != {SAMPLING}:
        print(table(options, results))
    if SAMPLING in options.cases:
        print(sampling_table(results))


if __name__ == "__main__":
    main()
