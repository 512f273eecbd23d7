"""`score --ray`: the parts of a table scored by the workers of a Ray cluster, each part into a file of its own."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import pickle
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pushforward.cli.files import local
from pushforward.cli.parts import column_types, one_warning_of_all_parts, score_part_of_table
from pushforward.cli.workers import GuardSource, WorkerError, caught_warnings, one_thread_only, sendable
from pushforward.errors import ConfigError, StorageError
from pushforward.io import PartedTable, TablePart, TableWriter, atomic_write, stream_table
from pushforward.io.atomic import reason
from pushforward.io.files import expanded

__all__ = ["PartScorer", "ScoringPlan", "score_with_ray"]

_PLAN = "_pushforward.json"
"""What a folder of scores is of; readers of folders ignore names that begin with an underscore."""

_CHUNKS = 16
"""Chunks in a part of a Parquet file: with chunks of 65,536 rows, a million rows."""


class ScoringPlan:
    """The parts of a table, the files of their scores, and what must not change until all of them are written.

    Args:
        source: the guard.
        table: what to score.
        output: the folder to write.
        rows: number of rows in memory at a time.
        prefix: text before the names of the new columns.
        options: of :class:`~pushforward.io.PartedTable`.

    Raises:
        ConfigError: for an output that is not a folder of such scores, or one of other scores.
    """

    def __init__(
        self, source: GuardSource, table: str, output: str, rows: int, prefix: str, options: dict[str, Any]
    ) -> None:
        self.output = expanded(output)
        parted = PartedTable(table, **options)
        self.parts = parted.parts(_CHUNKS * rows)
        self.settings = {"guard": source.digest, "table": parted.state(), "rows": rows, "prefix": prefix, **options}
        if self.output.exists() and not self.output.is_dir():
            raise ConfigError(f"{output} is a file: with --ray the output is a folder, so choose another name.")
        if local(table) and self.output.resolve().is_relative_to(expanded(table).resolve()):
            raise ConfigError(f"{output} is in the folder {table}, which is read: choose another place.")
        before = self._read()
        if before is None and self.output.is_dir() and any(self.output.iterdir()):
            raise ConfigError(
                f"the folder {output} is not empty and `score --ray` did not write it: choose another name."
            )
        if before is not None and before["settings"] != json.loads(json.dumps(self.settings)):
            named = [
                key
                for key in self.settings
                if before["settings"].get(key) != json.loads(json.dumps(self.settings[key]))
            ]
            raise ConfigError(
                f"the folder {output} has scores of another run, which differs in {', '.join(named)}: choose another name, or delete it."
            )
        try:
            self.output.mkdir(exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make the folder {output}: {reason(error)}.") from error
        for left in self.output.glob(".pushforward-*.tmp"):  # of a run that was killed
            with contextlib.suppress(OSError):
                left.unlink()
        self.write()

    def file(self, number: int) -> Path:
        """The file of a part. In the order of their names the files are the table."""
        return self.output / f"part-{number:06}.parquet"

    def missing(self) -> list[int]:
        """The parts without a file. A file has its name when all of it is written."""
        return [number for number in range(len(self.parts)) if not self.file(number).exists()]

    def write(self, **found: Any) -> None:
        """Write the settings and what was found."""
        content = {"settings": self.settings, "parts": len(self.parts), **found}
        with atomic_write(self.output / _PLAN) as file:
            file.write(json.dumps(content, indent=1).encode())

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self.output / _PLAN).read_bytes())
            return found if isinstance(found["settings"], dict) else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"cannot read {self.output / _PLAN}: {error}.") from error


class PartScorer:
    """What a worker does with each part: read it, score it, and write its file. It loads the guard at its first part.

    Args:
        source: the guard.
        table: the table.
        rows: number of rows in memory at a time.
        prefix: text before the names of the new columns.
        options: of :class:`~pushforward.io.PartedTable`.
        gpu: whether to move the network of the guard to the GPU of this worker.
        integers: the types of the columns of numbers that have only integers in the whole table.
    """

    def __init__(
        self,
        source: GuardSource,
        table: str,
        rows: int,
        prefix: str,
        options: dict[str, Any],
        gpu: bool,
        integers: Mapping[str, Any] | None = None,
    ) -> None:
        self.integers = integers
        self.source, self.table, self.rows, self.prefix = source, table, rows, prefix
        self.options, self.gpu = options, gpu
        self.loaded: tuple[Any, PartedTable] | None = None

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Score one part.

        Args:
            item: its place (``part``) and its file (``file``).

        Returns:
            The numbers of rows and alarms, the warnings, and the error or None, pickled, because Ray keeps results as columns.
        """
        with caught_warnings() as warned:
            try:
                rows, alarms = self._score(TablePart(*item["part"]), item["file"])
            except Exception as error:
                return {"result": pickle.dumps((0, 0, [], sendable(error)))}
        return {"result": pickle.dumps((rows, alarms, warned(), None))}

    def _score(self, part: TablePart, file: str) -> tuple[int, int]:
        if self.loaded is None:
            one_thread_only()
            guard = self.source.load()
            if self.gpu:
                guard.net.to("cuda")
            self.loaded = guard, PartedTable(self.table, **self.options)
        guard, parted = self.loaded
        total = alarms = 0
        with TableWriter(file) as writer:
            for scored, number in score_part_of_table(
                guard, parted, part, self.rows, self.prefix, self.table, self.integers
            ):
                writer.write(scored)
                total += scored.num_rows
                alarms += number
        return total, alarms


def score_with_ray(
    guard: Any,
    source: GuardSource,
    table: str,
    output: str,
    *,
    address: str,
    workers: int | None,
    gpus: float,
    rows: int,
    prefix: str,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Score a table on a Ray cluster, into a folder with a Parquet file for each part.

    Args:
        guard: the guard.
        source: where the workers find it.
        table: a file, folder or URI that every worker can read.
        output: a folder that every worker can write.
        address: "local" for a cluster on this machine for this call, "auto" for the one that runs, or its address.
        workers: number of workers; by default as many as the cluster has CPUs.
        gpus: GPUs of each worker, for the guard of a network.
        rows: number of rows in memory at a time.
        prefix: text before the names of the new columns.
        options: of :class:`~pushforward.io.PartedTable`.

    Returns:
        The numbers of rows, alarms and parts, and the seconds.

    Raises:
        ConfigError: for an input or output that cannot be divided, or without Ray.
    """
    from pushforward.estimators import NetworkGuard

    start = time.perf_counter()
    if table == "-":
        raise ConfigError(
            "with --ray every worker reads its own parts of the table, so standard input cannot be scored."
        )
    if output == "-" or not local(output):
        raise ConfigError("with --ray the output is a folder that every worker can write: name it with -o.")
    if getattr(guard, "reads_images", False):
        raise ConfigError("--ray divides tables into parts, and this guard reads images: use --workers.")
    if gpus and not isinstance(guard, NetworkGuard):
        raise ConfigError("--gpus is for the guard of a network: other guards score on the CPU.")
    source = replace(source, path=_whole(source.path), public_key=source.public_key and _whole(source.public_key))
    table = str(_whole(table)) if local(table) else table
    plan = ScoringPlan(source, table, output, rows, prefix, options)
    todo = plan.missing()
    total, alarms = _counted(plan, set(range(len(plan.parts))) - set(todo), prefix)
    if todo:
        items = [{"part": list(plan.parts[number]), "file": str(plan.file(number).absolute())} for number in todo]
        integers = PartedTable(table, **options).integer_columns(column_types(guard))
        scorer = (source, table, rows, prefix, options, gpus > 0, integers)
        with one_warning_of_all_parts():
            for result in _run(items, scorer, address, workers, gpus):
                new_rows, new_alarms, warned, error = pickle.loads(result["result"])
                for warning in warned:
                    warnings.warn(warning, stacklevel=2)
                if error is not None:
                    raise error
                total += new_rows
                alarms += new_alarms
    found = {"rows": total, "alarms": alarms}
    plan.write(**found)
    return {
        **found,
        "alarm_fraction": alarms / total if total else 0.0,
        "promised": guard.alpha,
        "guarantee": guard.guarantee,
        "output": output,
        "parts": len(plan.parts),
        "parts_before": len(plan.parts) - len(todo),
        "seconds": round(time.perf_counter() - start, 3),
    }


def _whole(path: str | Path) -> Path:
    """A path that means the same in the workers, whose present directory is another."""
    return expanded(path).absolute()


def _counted(plan: ScoringPlan, done: set[int], prefix: str) -> tuple[int, int]:
    """The rows and alarms of parts that an earlier run wrote."""
    import pyarrow.compute as pc

    rows = alarms = 0
    for number in sorted(done):
        for chunk in stream_table(plan.file(number), columns=[prefix + "alarm"], empty=True):
            rows += chunk.num_rows
            alarms += pc.sum(chunk[0]).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]
    return rows, alarms


def _run(
    items: list[dict[str, Any]], scorer: tuple[Any, ...], address: str, workers: int | None, gpus: float
) -> Iterator[dict[str, Any]]:
    """The results of all parts, in the order in which they end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no request leaves the machine
    try:
        ray: Any = importlib.import_module("ray")
        data: Any = importlib.import_module("ray.data")
    except ImportError:
        raise ConfigError('--ray needs Ray: pip install "pushforward[ray]".') from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    own = not ray.is_initialized()
    if own:
        here = {"num_cpus": workers, "include_dashboard": False} if address == "local" else {}
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **here)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"--ray {address}: there is no such cluster: {str(error).splitlines()[0]}") from error
    try:
        data.DataContext.get_current().enable_progress_bars = False
        count = min(workers or max(1, int(ray.cluster_resources().get("CPU", 1))), len(items))
        scored = data.from_items(items, override_num_blocks=len(items)).map(
            PartScorer,
            fn_constructor_args=scorer,
            compute=data.ActorPoolStrategy(size=count),
            num_cpus=1,
            num_gpus=gpus or None,
        )
        yield from scored.iter_rows()
    except ray.exceptions.RayError as error:
        raise WorkerError(f"a worker of Ray failed: {str(error).strip().splitlines()[-1][:300]}") from error
    finally:
        if own:
            ray.shutdown()
