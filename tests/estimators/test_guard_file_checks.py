"""Guard files with a right checksum and parts that do not fit each other: refused in one sentence, before they score or explain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import pushforward as pf
from pushforward import io
from pushforward.errors import StorageError, in_words

Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors of the guard of numbers, texts, a missing cell and instants."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=120),
            "b": np.where(rng.random(120) < 0.2, np.nan, rng.normal(size=120)),
            "city": rng.choice(["Oslo", "Bern", "Rome"], 120),
            "when": pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 86_400 * 99, 120), unit="s"),
        }
    )
    path = tmp_path_factory.mktemp("guard") / "guard.safetensors"
    pf.Guard(0.1, effort="fast", random_state=0).fit(frame).save(path)
    return io.read(path)


def refusal(content: tuple[dict[str, Any], dict[str, torch.Tensor]], path: Path, change: Change) -> str:
    """What is said of the file after a change."""
    header, tensors = io.read(_written(path, *content))
    change(header, tensors)
    with pytest.raises(StorageError, match=r"does not contain a guard that pushforward wrote: ") as caught:
        pf.Guard.load(_written(path, header, tensors))
    return str(caught.value).partition("wrote: ")[2]


def _written(path: Path, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    io.write(path, header, tensors)
    return path


def of_tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """A change of the first tensor with a name that ends so."""

    def apply(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        whole = next(key for key in sorted(tensors) if key.endswith(name))
        tensors[whole] = change(tensors[whole])

    return apply


def of_features(name: str, change: Callable[[list[Any]], list[Any]]) -> Change:
    def apply(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        features = header["score"]["features"]
        features[name] = change(features[name])

    return apply


def test_the_file_without_a_change_loads(content, tmp_path) -> None:
    assert pf.Guard.load(_written(tmp_path / "guard", *content)).schema_.names == ("a", "b", "city", "when")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda header, tensors: header.pop("seed"), "its entry 'seed' is missing."),
        (lambda header, tensors: header.pop("options"), "its entry 'options' is missing."),
        (lambda header, tensors: tensors.pop("calibration"), "its entry 'calibration' is missing."),
        (lambda header, tensors: header.update(reads=[]), "it reads '[]', and a guard reads tables or images."),
        (lambda header, tensors: header.update(ignored=3), "its entries have types or sizes that do not fit each other."),
        (lambda header, tensors: header["options"].update(speed=3), "does not know its entry 'speed'."),
        (lambda header, tensors: header.update(score=None), "its entries have types or sizes that do not fit each other."),
        (of_tensor("calibration", torch.Tensor.long), "its calibration scores have the wrong type."),
    ],
    ids=["seed", "options", "calibration", "reads", "ignored", "newer option", "score", "type"],
)  # fmt: skip
def test_absent_and_wrong_entries_are_named(content, tmp_path, change: Change, words: str) -> None:
    assert refusal(content, tmp_path / "guard", change).endswith(words)


REASONS = "score.pool.reasons."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (of_tensor(f"{REASONS}group", lambda t: t.flip(0)), "the columns of another table"),
        (of_tensor(f"{REASONS}group", torch.zeros_like), "the columns of another table"),
        (of_tensor(f"{REASONS}rows", lambda t: t + 1e12), "no category of its column"),
        (of_tensor(f"{REASONS}rows", lambda t: -t - 1), "no category of its column"),
        (of_tensor("score.pool.spaces.knots", lambda t: t.flip(0)), "do not fit each other"),
        (of_tensor("score.pool.spaces.ranks", lambda t: -t), "do not fit each other"),
        (of_tensor("score.pool.spaces.free", lambda t: 1 - t), "scale different coordinates"),
        (of_tensor("score.pool.spaces.free", lambda t: 2 * t), "do not fit each other"),
        (of_tensor(".kth", lambda t: -t - 1), "do not fit each other"),
        (of_features("kept", lambda kept: kept[::-1]), "each column once and in order"),
        (of_features("fills", lambda fills: [1e18] * len(fills)), "a usual value that is no category"),
        (of_features("calendar", lambda pairs: [[0, "day"]]), "instants in a column that has none"),
        (of_features("instants", lambda each: each * 2), "the same instants twice"),
        (of_features("indicators", lambda each: [-1]), "-1 is not an integer from 0 to 3"),
    ],
    ids=[
        "groups reversed", "one group", "large codes", "negative codes", "knots", "ranks", "other free", "free", "distances",
        "order", "fills", "calendar", "instants", "indicators",
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused(content, tmp_path, change: Change, words: str) -> None:
    """Of these, the first four made an explanation fail, or ask for the memory of a code; the others changed scores in silence."""
    assert words in refusal(content, tmp_path / "guard", change)


def test_what_errors_say_of_content() -> None:
    assert in_words(StorageError("a sentence.")) == "a sentence."
    assert in_words(MemoryError()) == "it would need more memory than there is."
    assert in_words(IndexError("list index out of range")).startswith("its entries have types or sizes")
