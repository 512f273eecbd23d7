"""The run of a reproduction: its budget, seeds, data, cached measurements, findings and pictures."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import torch
from scipy.special import stdtrit
from torch import Tensor

from benchmarks.common.datasets import load_images
from benchmarks.common.results import spread
from papers.costs import Costs
from papers.measurements import Measurements, measurements_file
from papers.reproduction import Budget, Finding
from pushforward.errors import StorageError
from pushforward.training import TrainingConfig, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pushforward.models import Model

__all__ = [
    "PAPER_TRAINING",
    "Experiment",
    "Trained",
    "UnfinishedError",
    "all_hold",
    "bits_per_dim",
    "clearly_below",
    "size",
    "spread",
    "width_for",
]

T = TypeVar("T")
M = TypeVar("M", bound="Model")

PAPER_TRAINING = TrainingConfig(batch_size=512, ema=None, progress="silent")
"""Options of training in every paper: one batch size, and the weights themselves instead of their moving average."""


class UnfinishedError(Exception):
    """The time of a run is over; ``args[0]`` is the key of the measurement that comes next."""


@dataclass
class Trained(Generic[M]):
    """A model that was trained once. Its file may be gone, as on another machine; then it is trained again when it is asked for.

    Args:
        experiment: the run.
        key: name of the measurement.
        read: function that reads the model or trains it.
    """

    experiment: Experiment
    key: str
    read: Callable[[], M]

    @cached_property
    def model(self) -> M:
        """The model."""
        return self.read()

    @property
    def facts(self) -> dict[str, Any]:
        """What :meth:`Experiment.train` returns beside the model."""
        return self.experiment.measure(self.key, dict)


@dataclass
class Experiment:
    """One run of one reproduction.

    Args:
        name: name of the reproduction.
        budget: size of the run.
        out: folder for findings, pictures, checkpoints and measurements, from which a stopped run resumes.
        data: data folder; None for that of the environment variable.
        seeds: number of seeds of a measurement with a spread; None for the number of the budget.
        say: function that is called with each line of progress.
        costs: CPU time of the measurements; an experiment that measures for another one has those of that one.
        end: time of ``time.monotonic`` after which no further measurement begins.

    Attributes:
        findings: what was found so far.
        pictures: files of the pictures so far.
        left_out: key of a measurement of a seed that :meth:`in_time` left out; "" for none.
    """

    name: str
    budget: Budget
    out: Path
    data: Path | None = None
    seeds: int | None = None
    say: Callable[[str], object] = print
    costs: Costs = field(default_factory=Costs)
    end: float = math.inf
    findings: list[Finding] = field(default_factory=list, init=False)
    left_out: str = field(default="", init=False)
    pictures: list[Path] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.marked = time.perf_counter()
        self.out.mkdir(parents=True, exist_ok=True)
        self.measurements = Measurements(self.out / measurements_file(self.name, self.budget), self.say)
        self.costs.known |= {self._name(key): cost for key, cost in self.measurements.costs.items()}

    def choose(self, *, smoke: T, quick: T, full: T, long: T | None = None) -> T:
        """The setting for the budget of this run; without one for a long run that of a quick one."""
        return {"smoke": smoke, "quick": quick, "long": quick if long is None else long, "full": full}[self.budget]

    @property
    def repeats(self) -> range:
        """The seeds of a repeated measurement."""
        return range(self.seeds or self.choose(smoke=1, quick=3, full=3))

    def few(self, quick: int, long: int | None = None) -> range:
        """As :attr:`repeats`, with fewer seeds in a quick run, for measurements that take long.

        Without a number of its own a long run has those of a quick one.
        """
        return range(self.seeds or self.choose(smoke=1, quick=quick, long=long, full=3))

    def in_time(
        self, seeds: Iterable[int], keys: Callable[[int], Iterable[str]], kept: Experiment | None = None
    ) -> list[int]:
        """The seeds to report: all while there is time, and then those that were measured, if there are any.

        Args:
            seeds: all seeds.
            keys: function that returns the names of a seed's measurements.
            kept: the experiment that has the measurements; None for this one.
        """
        every, measured = list(seeds), (kept or self).measured
        lacking = {seed: [key for key in keys(seed) if not measured(key)] for seed in every}
        done = [seed for seed, missing in lacking.items() if not missing]
        if len(done) in (0, len(every)) or time.monotonic() <= self.end:
            return every
        self.left_out = self.left_out or next(missing[0] for missing in lacking.values() if missing)
        return done

    def images(self, name: str, *, train: bool, rows: int | None = None) -> Tensor:
        """Images of a set, the first ``rows`` of them (the sets are in random order)."""
        return load_images(name, train=train, folder=self.data)[:rows]

    def image_parts(self, name: str, *, rows: int, held_out: int, test: int) -> tuple[Tensor, Tensor, Tensor]:
        """Training, held-out and test images of a set; the last ``held_out`` of ``rows`` training images are held out."""
        images = self.images(name, train=True, rows=rows)
        return images[:-held_out], images[-held_out:], self.images(name, train=False, rows=test)

    def measure(self, key: str, run: Callable[[], T], file: Path | None = None) -> T:
        """A measurement with plain JSON values. It is made once; a resumed run reads it from a file.

        If ``run`` also writes a ``file``, it is made again where that file is gone.

        Raises:
            UnfinishedError: if the time of the run is over and the measurement was not made.
        """
        if not self.measured(key) or (file is not None and not file.exists()):
            if time.monotonic() > self.end:
                raise UnfinishedError(key)
            start = time.perf_counter()
            with self.costs.measuring(self._name(key)) as cost:
                value: Any = run()
            took = time.perf_counter() - start
            # A training that went on from its checkpoint took more: only the clock time of its earlier parts is known.
            cost.complete = not (isinstance(value, dict) and value.get("seconds", 0.0) > took + 1)
            self.say(f"{key}: {_short(value)} ({took:.0f} s)")
            self.measurements.add(key, value, cost)
        self.costs.use(self._name(key))
        return self.measurements.values[key]

    def _name(self, key: str) -> str:
        """The name of a measurement among those of all experiments."""
        return f"{self.name}/{key}"

    def measured(self, key: str) -> bool:
        """Whether a measurement was made, so that :meth:`measure` only reads it."""
        return key in self.measurements.values

    def train(
        self,
        key: str,
        make: Callable[[], M],
        rows: Tensor,
        validation: Tensor | None,
        *,
        seed: int = 0,
        **options: Any,
    ) -> tuple[M, dict[str, Any]]:
        """A model trained once by ``pf.fit``. A resumed run continues from the checkpoint or reads the trained model.

        Args:
            key: name of the measurement.
            make: function that makes the model.
            rows: training rows.
            validation: held-out rows, which choose the weights, or None.
            seed: of the initial weights and of the training.
            options: options of ``pf.fit``, and ``curve=True`` to return the held-out log-likelihood at each evaluation.

        Returns:
            The model, and its parameters, steps and seconds of training; with ``curve`` also pairs of step and nats, and the
            step of the weights that were kept.
        """
        trained = self.trained(key, make, rows, validation, seed=seed, **options)
        return trained.model, trained.facts

    def trained(
        self,
        key: str,
        make: Callable[[], M],
        rows: Tensor,
        validation: Tensor | None,
        *,
        seed: int = 0,
        **options: Any,
    ) -> Trained[M]:
        """As :meth:`train`, but a model that was trained on another machine is trained again only if it is asked for."""
        trained = Trained(self, key, partial(self._train, key, make, rows, validation, seed, options))
        if self.measured(key):
            self.costs.use(self._name(key))  # also if only what was measured from the model is read
        else:
            _ = trained.model
        return trained

    def _train(
        self,
        key: str,
        make: Callable[[], M],
        rows: Tensor,
        validation: Tensor | None,
        seed: int,
        options: dict[str, Any],
    ) -> M:
        """Read the model of a key, or train it, from its checkpoint if there is one."""
        from pushforward.io import load, save

        kept, checkpoint = self.model_file(key), self.checkpoint_file(key)

        def run() -> dict[str, Any]:
            given = dict(options)
            curve = given.pop("curve", False)
            torch.manual_seed(seed)
            model = make()
            with _replaceable(checkpoint):
                result = fit(
                    model,
                    rows,
                    validation=validation,
                    config=PAPER_TRAINING,
                    seed=seed,
                    checkpoint=checkpoint,
                    **given,
                )
            save(model, kept)
            facts = {"parameters": size(model), "steps": result.steps, "seconds": round(result.seconds, 1)}
            if curve:
                points = [[event["step"], event["validation"]] for event in result.history]
                facts |= {"curve": points, "best_step": result.best_step}
            return facts

        self.measure(key, run, kept)
        checkpoint.unlink(missing_ok=True)  # after the line of the measurement: a run that is killed before it resumes
        with _replaceable(kept):
            return cast("M", load(kept))

    def forget(self, key: str) -> None:
        """Delete the model of a key, once everything that it is for has been measured; asking for it trains it again."""
        for file in (self.model_file(key), self.checkpoint_file(key)):
            file.unlink(missing_ok=True)

    def model_file(self, key: str) -> Path:
        """The file of a trained model."""
        return self._file(key, "safetensors")

    def checkpoint_file(self, key: str) -> Path:
        """The file from which its training resumes."""
        return self._file(key, "checkpoint")

    def _file(self, key: str, kind: str) -> Path:
        # Not by with_suffix, which would cut "noise 0.5 VAE" at the dot, so that two keys had one file.
        return self.out / f"{self.name}-{self.budget}-{key.replace(' ', '-').replace('/', '-')}.{kind}"

    def time_limit(
        self,
        key: str,
        make: Callable[[], Model],
        rows: Tensor,
        *,
        smoke: int,
        quick: float,
        full: float,
        long: float | None = None,
        batch_size: int = 512,
    ) -> dict[str, Any]:
        """Options of ``train`` that give every model the same time: steps (smoke), CPU time (quick, long), or wall time (full).

        CPU time is converted to steps once, by timing ten of them on a copy of the model, so that other work on the
        machine does not shorten a run and a repeated run takes the same steps. A long run times about a second of steps,
        because an error of ten steps would become one of minutes. Evaluations do not count.

        Args:
            key: name of the measurement.
            make: function that makes the model.
            rows: training rows.
            smoke: number of steps.
            quick: seconds of CPU time.
            full: seconds of wall time.
            long: seconds of CPU time of a long run; None for that of a quick one.
            batch_size: rows of a step.
        """
        if self.budget == "smoke":
            return {"max_steps": smoke}
        if self.budget == "full":
            return {"max_time": full}

        def seconds(steps: int) -> float:
            torch.manual_seed(0)
            model = make()
            start = time.process_time()
            fit(
                model,
                rows[: 4 * batch_size],
                validation=None,
                config=PAPER_TRAINING,
                batch_size=batch_size,
                max_steps=steps,
            )
            return time.process_time() - start

        limit = self.choose(smoke=quick, quick=quick, long=long, full=full)

        def run() -> int:
            seconds(2)  # the first steps also allocate memory and load kernels
            timed = 10
            if self.budget == "long":
                timed = min(500, max(10, round(10 / max(seconds(12) - seconds(2), 0.01))))
            each = statistics.median(seconds(timed + 2) - seconds(2) for _ in range(3)) / timed
            return 10 * max(1, round(limit / each / 10))

        return {"max_steps": self.measure(f"steps of {key} in {limit:g} s", run)}

    def report(
        self,
        claim: str,
        *,
        paper: str = "",
        ours: str,
        confirmed: bool | None,
        seeds: int,
        note: str = "",
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Add a finding; its time is the time since the previous finding, its CPU time that of the measurements since then.

        The arguments are those of :class:`~papers.reproduction.Finding`.
        """
        now = time.perf_counter()
        if self.budget == "smoke":
            confirmed = None
        confirmed = None if confirmed is None else bool(confirmed)  # JSON has no NumPy booleans
        plain = {name: float(value) for name, value in (figures or {}).items()}
        block, cpu, complete = self.costs.block()
        self.findings.append(
            Finding(
                claim, paper, ours, confirmed, round(now - self.marked, 1), note, plain, cpu, complete, block, seeds
            )
        )
        self.marked = now
        self.say(
            f"{'confirmed' if confirmed else 'not decided' if confirmed is None else 'not confirmed'}: {claim}: {ours}"
        )

    def figure(self, width: float, height: float) -> Figure:
        """An empty figure, in inches."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        return figure

    def strip(self, name: str, rows: dict[str, Tensor]) -> None:
        """Save a picture with a labeled row for each tensor of images ``(n, channels, height, width)``, values 0 to 255."""
        figure = self.figure(
            8, 0.2 + sum(8 * images.shape[-2] / images.shape[-1] / len(images) for images in rows.values())
        )
        for axes, (label, images) in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows.items(), strict=True):
            wide = images.clamp(0, 255).to(torch.uint8).permute(2, 0, 3, 1).flatten(1, 2).numpy()
            axes.imshow(
                wide if wide.shape[-1] == 3 else wide[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest"
            )
            axes.set(xticks=[], yticks=[])
            axes.set_ylabel(label, rotation=0, horizontalalignment="right", verticalalignment="center")
        self.picture(name, figure)

    def keeps_picture(self, name: str, models: Iterable[Trained[Any]]) -> bool:
        """Whether the picture of an earlier run stands, because the file of one of the models that it shows is gone."""
        path = self.out / f"{self.name}-{name}.png"
        if not path.exists() or all(self.model_file(trained.key).exists() for trained in models):
            return False
        self.pictures.append(path)
        return True

    def picture(self, name: str, figure: Figure) -> None:
        """Save a picture in the folder of the findings; one with the name of an earlier one takes its place."""
        path = self.out / f"{self.name}-{name}.png"
        figure.savefig(path, dpi=120, bbox_inches="tight", pad_inches=0.05)  # do not cut off labels
        if path not in self.pictures:
            self.pictures.append(path)


@contextmanager
def _replaceable(file: Path) -> Iterator[None]:
    """Say of a file that cannot be read that it may be deleted."""
    try:
        yield
    except StorageError as error:
        if str(file) not in str(error):
            raise
        raise StorageError(f"{str(error).rstrip('.')}: delete it, and this training is made again.") from error


def bits_per_dim(model: Model, images: Tensor, *, batch: int = 250, samples: int = 1) -> float:
    """Mean bits/dim of integer images; an upper bound where the model is dequantized."""
    with torch.no_grad():
        parts = [model.evaluate(part, samples=samples).bits_per_dim().double() for part in images.split(batch)]
    return torch.cat(parts).mean().item()


def clearly_below(low: Sequence[float], high: Sequence[float]) -> bool | None:
    """Whether ``low`` is below ``high`` by a one-sided paired t-test at 5 %.

    The mean of the paired differences must be above 6.31, 2.92 or 2.13 standard errors with two, three or five seeds. One pair has
    no standard error, and decides nothing (None).
    """
    gains = [theirs - ours for ours, theirs in zip(low, high, strict=True)]
    if len(gains) == 1:
        return None
    error = statistics.stdev(gains) / math.sqrt(len(gains))
    return statistics.fmean(gains) > float(stdtrit(len(gains) - 1, 0.95)) * error


def all_hold(verdicts: Iterable[bool | None]) -> bool | None:
    """Whether all verdicts are True: False if one is False, else None if one is None."""
    found = list(verdicts)
    return False if False in found else None if None in found else True


def size(model: Model) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def width_for(build: Callable[[int], Model], parameters: int, widths: Sequence[int] = (8, 1024)) -> int:
    """The width, between two widths, for which the number of parameters of a model is nearest to the given number."""
    low, high = widths
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(build(middle)) < parameters else (low, middle)
    return min((low, high), key=lambda width: abs(size(build(width)) - parameters))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    return str(value)[:100]
