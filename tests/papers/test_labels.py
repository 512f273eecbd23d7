"""Labels in the format of MNIST."""

import gzip
import struct
from pathlib import Path

import pytest

from benchmarks.common.datasets import load_labels
from pushforward.errors import ConfigError, StorageError

NAME = "mnist/t10k-labels-idx1-ubyte.gz"


def write(folder: Path, raw: bytes) -> None:
    (folder / "mnist").mkdir(exist_ok=True)
    (folder / NAME).write_bytes(raw)


def test_labels_are_read(tmp_path):
    write(tmp_path, gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", 3) + bytes([7, 0, 9])))
    assert load_labels("mnist", train=False, folder=tmp_path).tolist() == [7, 0, 9]


def test_errors(tmp_path):
    with pytest.raises(StorageError, match="beside"):
        load_labels("mnist", train=True, folder=tmp_path)
    for name in ("cifar10", "none"):
        with pytest.raises(ConfigError, match=name):
            load_labels(name, train=True, folder=tmp_path)
    for raw in (b"no gzip", gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 9, 1])), gzip.compress(b"")):
        write(tmp_path, raw)
        with pytest.raises(StorageError):
            load_labels("mnist", train=False, folder=tmp_path)
