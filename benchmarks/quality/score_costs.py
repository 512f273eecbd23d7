"""Cost of every score: CPU time and extra memory of one image, and whether a row's score depends on the other rows.

    python -m benchmarks.quality.ood --costs

The images are 28 x 28 and gray, with one thread. Flows have the size of the guard's (an ensemble has three of them), the VAE has 256
hidden units and 16 latents, and the manifold 16 dimensions; all are trained for a few steps only, because training does not change the
cost. Each score is fitted on 500 images in a separate process. A new process then gets the fitted score and measures:

- *extra memory*: free memory is returned to the system, the peak of the resident set is reset, one batch is scored, and the peak is
  read. The growth includes the scratch memory of libraries. The score chooses the size of a batch;
- *ms*: CPU time of one image in such batches, best of three or more;
- *alone*: ``score(x)[i] == score(x[i:i+1])`` bit for bit, for images of the batch.

Batch tests compare 50 images with 500; they have no result for a single row, except their p-values of single images. The features
of the reference are computed before the measurement, so the scratch memory of the flow is not in their figure.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

import pushforward as pf
from benchmarks.common.datasets import load_images
from benchmarks.common.results import Results, footer, markdown
from benchmarks.quality.data import add_data_option
from pushforward import distributions, io, models, transforms
from pushforward.detection import BatchTwoSampleGate, MMDTest, ProjectionKSTest, RandomFeatures, TypicalityTest, scores
from pushforward.detection.batching import by_batches
from pushforward.detection.image_score import IMAGE_TRAINING, ImageScore, fit_image_score
from pushforward.detection.transformation_training import fit_transformations
from pushforward.models import Model

SHAPE, REFERENCE, BATCH = (1, 28, 28), 500, 50
M = TypeVar("M", bound=Model)
Values = Callable[[Tensor], Tensor]
"""Images to ``(n,)`` or ``(n, columns)``."""


class Bench:
    """Models and images for all scores."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.train = images[:2000]
        self.reference = images[2000 : 2000 + REFERENCE]
        self.test = images[2000 + REFERENCE :]
        self.flows = [self._trained(models.Glow(SHAPE, scales=2, layers=4, hidden=(32, 32)), seed) for seed in range(3)]
        self.vae = self._trained(models.VAE(SHAPE, latent=16), 0)
        chain = transforms.Chain(
            transforms.UniformDequantize(SHAPE, 256), transforms.Flatten(SHAPE), transforms.Affine(784, shift=-0.5),
            transforms.Variational(784, 32, hidden=(256,)), transforms.Variational(32, 16, hidden=(64,)),
        )  # fmt: skip
        self.deep = self._trained(models.Flow(chain, distributions.Normal(16)), 0)
        self.surface = self._trained(models.RectangularFlow(784, 16), 0, vectors)

    def _trained(self, model: M, seed: int, view: Values = lambda x: x) -> M:
        torch.manual_seed(seed)
        pf.fit(model, view(self.train), validation=None, max_steps=5, batch_size=64, seed=seed, progress="silent")
        return model.eval()


def vectors(images: Tensor) -> Tensor:
    """Images as rows of real numbers, for models of vectors."""
    return images.flatten(1).float() / 255


@dataclass(frozen=True)
class Case:
    """A score, and a note for the table."""

    make: Callable[[Bench], Any]
    view: Values = lambda x: x
    note: str = ""


def guard(bench: Bench) -> ImageScore:
    """The default score of images."""
    return fit_image_score(bench.train, bench.reference, config=replace(IMAGE_TRAINING, max_steps=5, progress="silent"))


def network(bench: Bench) -> scores.TransformationScore:
    """The network of transformations of the default score of images."""
    return fit_transformations(bench.train, steps=5)


def dose(bench: Bench) -> scores.DoSE:
    return scores.DoSE(scores.LikelihoodPath(bench.flows[0]), density="gmm", components=16)


def of(make: Callable[[Model], scores.Statistic]) -> Callable[[Bench], scores.Statistic]:
    """A score of one flow."""
    return lambda bench: make(bench.flows[0])


def ensemble(make: Callable[..., scores.Statistic]) -> Case:
    """A score of three flows."""
    return Case(lambda bench: make(*bench.flows), note="3 flows")


CASES: dict[str, Case] = {
    "Brightness": Case(lambda bench: scores.Brightness()),
    "Variance": Case(lambda bench: scores.Variance()),
    "CodeLength": Case(lambda bench: scores.CodeLength("png", "zlib"), note="PNG and zlib"),
    "Log": Case(lambda bench: scores.Log(scores.CodeLength("png", pool=2)), note="of the PNG of the halved image"),
    "Neighbors": Case(lambda bench: scores.Neighbors(), note="of 500 images"),
    "PrincipalDistances": Case(lambda bench: scores.PrincipalDistances()),
    "Likelihood": Case(of(scores.Likelihood)),
    "Typicality": Case(of(scores.Typicality)),
    "TwoSided": Case(of(lambda flow: scores.TwoSided(scores.Likelihood(flow))), note="of -log p"),
    "LatentNorm": Case(of(scores.LatentNorm)),
    "LatentMahalanobis": Case(of(scores.LatentMahalanobis)),
    "LatentNeighbors": Case(of(scores.LatentNeighbors), note="of 500 images"),
    "LatentDependence": Case(of(scores.LatentDependence)),
    "LikelihoodPath": Case(of(scores.LikelihoodPath)),
    "InputComplexity": Case(of(scores.InputComplexity)),
    "DoSE": Case(dose, note="of the likelihood's path"),
    "TransformationScore": Case(network, note="8 symmetries"),
    "SurpriseSum": Case(lambda bench: scores.SurpriseSum(scores.Neighbors(), scores.Variance()), note="of kNN and variance"),
    "ImageScore": Case(guard, note="the guard's default"),
    "LikelihoodRatio": Case(lambda bench: scores.LikelihoodRatio(bench.flows[0], bench.flows[1]), note="2 flows"),
    "GeneralModelRatio": Case(lambda bench: scores.GeneralModelRatio(bench.flows[0], bench.flows[1]), note="2 flows"),
    "EnsembleLikelihood": ensemble(scores.EnsembleLikelihood),
    "WAIC": ensemble(scores.WAIC),
    "Disagreement": ensemble(scores.Disagreement),
    "EnsembleEntropy": ensemble(scores.EnsembleEntropy),
    "EnsembleStd": ensemble(scores.EnsembleStd),
    "EnsembleTypicality": ensemble(scores.EnsembleTypicality),
    "HierarchicalRatio": Case(lambda bench: scores.HierarchicalRatio(bench.deep), note="2 latent layers"),
    "InputGradientNorm": Case(of(scores.InputGradientNorm)),
    "LayerGradients": Case(of(scores.LayerGradients)),
    "ParameterGradients": Case(of(scores.ParameterGradients)),
    "FisherScore": Case(of(scores.FisherScore)),
    "ScoreTypicality": Case(of(scores.ScoreTypicality)),
    "LikelihoodRegret": Case(
        lambda bench: scores.LikelihoodRegret(bench.vae), note="VAE, 100 steps on the posterior of each image"
    ),
    "LocalDimension": Case(of(lambda flow: scores.LocalDimension(flow, scale=1.0)), note="784 x 784 Jacobians"),
    "DualThreshold": Case(of(lambda flow: scores.DualThreshold(flow, scale=1.0, rows=16)), note="784 x 784 Jacobians"),
    "ManifoldDistance": Case(lambda bench: scores.ManifoldDistance(bench.surface), vectors, "manifold of 16 dimensions"),
    "ManifoldLikelihood": Case(lambda bench: scores.ManifoldLikelihood(bench.surface), vectors, "manifold of 16 dimensions"),
    "DensityAndDistance": Case(lambda bench: scores.DensityAndDistance(bench.surface), vectors, "manifold of 16 dimensions"),
}  # fmt: skip
FEW = {
    "LocalDimension": 16,
    "DualThreshold": 16,
    "LikelihoodRegret": 64,
    "ScoreTypicality": 128,
    "FisherScore": 128,
    "LayerGradients": 128,
}
"""Number of images to fit on where 500 would take minutes."""


GATES = ("MMD gate, random features", "MMD gate, one image", "KS of latent projections", "typicality of a batch")


def gates(bench: Bench) -> dict[str, tuple[Callable[[Tensor], Any], int]]:
    """Batch tests with their batch size, and the conformal p-value of the gate's kernel for one row."""
    features = RandomFeatures(SHAPE)
    flow = bench.flows[0]

    def log_p(x: Tensor) -> Tensor:
        return by_batches(lambda part: flow.evaluate(part).value.double(), x, BATCH)

    known = by_batches(features, bench.reference).double()
    mmd = BatchTwoSampleGate(MMDTest(known), features)
    ks = ProjectionKSTest(by_batches(flow.encode, bench.reference).double())
    typical = TypicalityTest(log_p(bench.reference))
    tests: list[tuple[Callable[[Tensor], Any], int]] = [
        (mmd.p_value, BATCH),
        (lambda x: torch.from_numpy(mmd.single_p_values(x)), 1),
        (lambda x: ks.p_value(by_batches(flow.encode, x, BATCH).double()), BATCH),
        (lambda x: typical.p_value(log_p(x)), BATCH),
    ]
    return dict(zip(GATES, tests, strict=True))


def status(field: str) -> float:
    """A field of /proc/self/status, MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def extra_memory(run: Callable[[], object]) -> float:
    """Growth of the peak resident set during a call, MiB; free memory is returned to the system first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = status("VmRSS")
    run()
    return max(0.0, status("VmHWM") - before)


def cpu_ms(run: Callable[[], object], images: int) -> float:
    """CPU time of one image in ms: the best of at least three runs and half a second."""
    best, total = float("inf"), 0.0
    for count in range(50):
        start = time.process_time()
        run()
        took = time.process_time() - start
        best, total = min(best, took), total + took
        if total > 5 or (count >= 2 and total > 0.5):
            break
    return 1000 * best / images


def row_independent(values: Values, x: Tensor, positions: Sequence[int]) -> bool:
    """Whether rows have the same score, bit for bit, alone and among other rows."""
    together = values(x)
    return all(torch.equal(values(x[i : i + 1])[0], together[i]) for i in positions)


def fit(name: str, bench: Bench) -> dict[str, Any]:
    """A fitted score as it would be stored in a file, and the CPU seconds of fitting."""
    case, rows = CASES[name], FEW.get(name, REFERENCE)
    score = case.make(bench)
    start = time.process_time()
    score.fit(case.view(bench.reference[:rows]))
    took = time.process_time() - start
    description, tensors = io.pack(score)
    arrays = {key: tensor.numpy() for key, tensor in tensors.items()}
    return {"description": description, "arrays": arrays, "seconds": took, "rows": rows}


def measured(name: str, bench: Bench, fitted: dict[str, Any]) -> dict[str, Any]:
    """All measurements of one score."""
    tensors = {key: torch.from_numpy(array) for key, array in fitted["arrays"].items()}
    score = io.unpack(fitted["description"], tensors)
    assert isinstance(score, scores.Statistic)
    x = CASES[name].view(bench.test[: score.batch_size])
    memory = extra_memory(lambda: score.values(x))
    fixed = {id(t): t for t in (*score.parameters(), *score.buffers())}
    positions = (0, len(x) // 2, len(x) - 1)
    return {
        "needs": ", ".join(sorted(score.needs)), "batch": score.batch_size, "ms": cpu_ms(lambda: score.values(x), len(x)),
        "extra MiB": memory, "own MiB": sum(t.numel() * t.element_size() for t in fixed.values()) / 2**20,
        "fit seconds": fitted["seconds"], "fit rows": fitted["rows"],
        "alone": "yes" if row_independent(score.values, x, positions) else "no",
    }  # fmt: skip


def measured_test(name: str, bench: Bench) -> dict[str, Any]:
    """All measurements of a batch test."""
    test, size = gates(bench)[name]
    x = bench.test[:size]
    memory = extra_memory(lambda: test(x))
    row = (
        "one result for the batch" if size > 1 else ("yes" if row_independent(test, bench.test[:5], range(5)) else "no")
    )
    return {"needs": "batch", "batch": size, "ms": cpu_ms(lambda: test(x), size), "extra MiB": memory, "alone": row}


def in_subprocess(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run a function in a fork of this process, and return its result."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def work() -> None:
        torch.set_num_threads(1)
        theirs.send(function(*arguments))

    child = context.Process(target=work)
    child.start()
    theirs.close()
    try:
        result = ours.recv()
    except EOFError:
        raise SystemExit(
            f"the process of {function.__name__} ended without a result: is there enough memory?"
        ) from None
    child.join()
    return result


def run(data: Path | None, results: Results) -> None:
    """Measure missing scores, each in a fork of this process."""
    missing = [name for name in (*CASES, *GATES) if not results.where(score=name)]
    if not missing:
        return
    torch.set_num_threads(1)
    bench = Bench(load_images("fashion-mnist", train=True, folder=data)[:4000])
    for name in missing:
        if name in CASES:
            found = {"note": CASES[name].note, **in_subprocess(measured, name, bench, in_subprocess(fit, name, bench))}
        else:
            found = {"note": "", **in_subprocess(measured_test, name, bench)}
        results.add({"score": name, **found})


# Names of some scores in records of earlier versions.
RENAMED = {
    "Neighbours": "Neighbors", "LatentNeighbours": "LatentNeighbors", "Residual": "ManifoldDistance", "OnManifold": "ManifoldLikelihood",
    "DensityAndResidual": "DensityAndDistance",
}  # fmt: skip
SHOWN = {
    "Log (of the PNG of the halved image)": "Log (PNG of the halved image)",
    "CodeLength (PNG and zlib)": "CodeLength (PNG, zlib)", "DoSE (of the likelihood's path)": "DoSE (path)",
    "TwoSided (of -log p)": "TwoSided (-log p)",
    "LikelihoodRegret (VAE, 100 steps on the posterior of each image)": "LikelihoodRegret (VAE, 100 steps)",
    "DualThreshold (784 x 784 Jacobians)": "DualThreshold",
}  # fmt: skip


def table(results: Results) -> str:
    """A table of the newest record of each score, the cheapest first."""
    short, rows = [], []
    newest = {RENAMED.get(record["score"], record["score"]): record for record in results.records}
    for r in sorted(newest.values(), key=lambda record: record["ms"]):
        digits = 3 if r["ms"] < 1 else 1 if r["ms"] < 100 else 0
        own = f"{r['own MiB']:.1f}" if "own MiB" in r else ""
        fit = f"{r['fit seconds']:.1f} ({r['fit rows']})" if "fit seconds" in r else ""
        label = r["score"] + (f" ({r['note']})" if r["note"] else "")
        short.append([SHOWN.get(label, label), f"{r['ms']:.{digits}f}", str(r["batch"]), f"{r['extra MiB']:.0f}", own])
        rows.append([label, r["needs"], f"{r['ms']:.{digits}f}", str(r["batch"]), f"{r['extra MiB']:.0f}", own, fit, r["alone"]])  # fmt: skip
    head = [
        "score",
        "needs",
        "ms per image",
        "batch",
        "extra MiB of a batch",
        "own MiB",
        "fit, CPU s (images)",
        "row alone",
    ]
    first = markdown([head[0], *head[2:6]], short)
    return (
        first
        + "\n\n"
        + markdown(head, rows)
        + "\n"
        + footer("python -m benchmarks.quality.ood --costs", results.records)
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Cost of every score.")
    add_data_option(parser)
    parser.add_argument("--out", type=Path, default=Path("runs/score-costs.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table of existing results and run nothing")
    options = parser.parse_args(arguments)
    results = Results(options.out)
    if not options.table:
        run(options.data, results)
    print(table(results))


if __name__ == "__main__":
    main()
