"""PixelCNN's two networks: sampling with and without cached activations, and bits/dim in equal CPU time.

    python -m benchmarks.quality.pixelcnn --data DATA                # runs missing cases, then prints the tables
    python -m benchmarks.quality.pixelcnn --data DATA --table        # only prints the tables

Sampling draws 64 images of 28 x 28 from one seed. Without the cache each pixel takes a pass of the whole network, from the same noise;
``--rows`` rows are drawn in this way, and their time is scaled to all rows, because every pass costs the same. Weights are random,
and far enough from their initial values that the gray values differ.

Bits/dim are those of ``benchmarks.quality.families``.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import torch

import pushforward as pf
from benchmarks.common.results import Record, Results, footer, markdown
from benchmarks.quality import families

SHAPE, LEVELS, IMAGES = (1, 28, 28), 256, 64
NETWORKS: dict[str, dict[str, Any]] = {
    "gated": {"filters": 16, "layers": 3},
    "plusplus": {"filters": 16, "layers": 1},
}
TRAINED = ["PixelCNN, small", "PixelCNN++"]


@torch.no_grad()
def sample(options: argparse.Namespace, results: Results) -> None:
    """Time both methods of sampling, and compare their samples."""
    drawn, count = options.rows, IMAGES
    for network, sizes in NETWORKS.items():
        key: Record = {"kind": "sampling", "network": network, **sizes, "images": count, "seed": 0, "rows": drawn}
        if results.where(**key):
            continue
        torch.manual_seed(0)
        base = pf.distributions.PixelCNN(
            SHAPE, pf.transforms.CategoricalLikelihood(LEVELS), network=network, **sizes
        ).eval()
        for (
            weight
        ) in base.parameters():  # away from the uniform distribution, for which equal samples would prove little
            weight.add_(0.05 * torch.randn_like(weight))
        began = time.process_time()
        kept = base.sample(torch.Size((count,)), generator=torch.Generator().manual_seed(0))
        cached = time.process_time() - began
        began = time.process_time()
        likelihood, (_, height, width) = base.likelihood, SHAPE
        noise = torch.rand((count, height, width, likelihood.draws(1)), generator=torch.Generator().manual_seed(0))
        x = torch.zeros(count, *SHAPE)
        for row in range(drawn):
            for column in range(width):
                raw = base.conditioner(likelihood.network_input(x), None)[:, :, row, column]
                x[:, :, row, column] = likelihood.sample(raw, noise[:, row, column])
        plain = (time.process_time() - began) * height / drawn
        x, kept = x[:, :, :drawn], kept[:, :, :drawn]
        results.add(key | {
            "cached": cached, "uncached": plain, "ratio": plain / cached, "values": len(x.unique()),
            "equal_images": int((x == kept).flatten(1).all(1).sum()), "equal_pixels": (x == kept).double().mean().item(),
        })  # fmt: skip


SHOWN = {"gated": "gated", "plusplus": "PixelCNN++"}


def sampling_table(results: Results) -> str:
    """One row for each network and machine."""
    records = results.where(kind="sampling")
    rows = [
        [f"{SHOWN[r.get('network', 'gated')]}, {r['filters']} filters, {r['layers']} layer{'s' * (r['layers'] > 1)}", r["machine"].split()[0].removesuffix("(R)"),
         f"{r['cached']:.2f}", f"{r['uncached']:.1f}", f"{r['ratio']:.0f}",
         f"all {r['rows']}" if r["rows"] == SHAPE[1] else f"{r['rows']}, scaled to {SHAPE[1]}", f"{r['equal_images']} of {r['images']}"]
        for r in records
    ]  # fmt: skip
    head = ["network", "processor", "cached", "without", "ratio", "rows drawn without", "equal images"]
    align = ["---", "---", "---:", "---:", "---:", "---", "---:"]
    return "\n".join(["\nSampling images of 28 x 28 from one seed, CPU seconds.\n", markdown(head, rows, align),
                      footer("python -m benchmarks.quality.pixelcnn", records)])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="PixelCNN's two networks: sampling, and bits/dim.")
    parser.add_argument("--data", type=Path, default=os.environ.get("PUSHFORWARD_DATA"), help="data folder")
    parser.add_argument(
        "--rows", type=int, default=SHAPE[1], help="rows of the image that are sampled without the cache"
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="CPU time of training; 0 for sampling only")
    parser.add_argument("--batch", type=int, default=32, help="images in a batch")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3], help="learning rates to choose from")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--test", type=int, default=2000, help="test images")
    parser.add_argument("--out", type=Path, default=Path("runs/quality-families.jsonl"))
    parser.add_argument("--also", type=Path, help="another file whose sampling is shown too")
    parser.add_argument("--table", action="store_true", help="print the tables of existing results and run nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(options.out)
    options.families, options.draws = TRAINED, 1
    if not options.table:
        sample(options, results)
        if options.seconds:
            families.run(options, results)
    if options.also:
        results.records = Results(options.also).records + results.records
    print(sampling_table(results))
    if options.seconds:
        print("\n" + families.table(options, results))


if __name__ == "__main__":
    main()
