"""Run every reproduction with the smoke budget, on real data if there are any and else on noise."""

import gzip
import io
import os
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from papers.run import reproduce, reproductions


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment's data folder, or one with noise under the names that the smoke budget reads."""
    if folder := os.environ.get("PUSHFORWARD_DATA"):
        return Path(folder)
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("mnist", "fashion-mnist"):
        (root / name).mkdir()
        for part, count in (("train", 400), ("t10k", 120)):
            raw = bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 28, 28) + rng.bytes(count * 784)
            (root / name / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(raw, 1))
            labels = bytes([0, 0, 8, 1]) + struct.pack(">I", count) + bytes(k % 10 for k in range(count))
            (root / name / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels, 1))
    (root / "cifar10").mkdir()
    for name in ("train_10000", "test"):
        pictures = [io.BytesIO() for _ in range(120)]
        for picture in pictures:
            Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)).save(picture, "png")
        parquet.write_table(
            pa.table({"image": [picture.getvalue() for picture in pictures]}), root / "cifar10" / f"{name}.parquet"
        )
    for name in ("protein", "kin40k"):
        table = root / "uci" / name
        table.mkdir(parents=True)
        np.savetxt(table / "data.csv.gz", rng.normal(size=(500, 10)), delimiter=",")
        np.savetxt(table / "test_mask.csv.gz", np.eye(10, dtype=int).repeat(50, 0), fmt="%d", delimiter=",")
    return root


SHORT = {"maf", "nice", "nxn"}
"""Smoke runs of a second. What the others call is tested on smaller data in the other files of this folder."""


@pytest.mark.parametrize(
    "name",
    [e.name if e.name in SHORT else pytest.param(e.name, marks=pytest.mark.slow) for e in reproductions()],
)
def test_smoke(name: str, data: Path, tmp_path: Path):
    report = reproduce(name, budget="smoke", data=data, out=tmp_path, say=lambda line: None)
    assert report.findings
    assert all(finding.confirmed is None for finding in report.findings)
    assert all("nan" not in finding.ours for finding in report.findings)
    assert all((tmp_path / picture).stat().st_size > 1000 for picture in report.pictures)
