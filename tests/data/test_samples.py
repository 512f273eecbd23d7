"""The samples that come with the package agree with their description."""

from importlib import resources

import numpy as np
import pytest

from pushforward.data import IMAGE_SAMPLES, SAMPLES, Schema, load_image_sample, load_sample
from pushforward.errors import ConfigError


def test_thyroid():
    sample = load_sample("thyroid")
    assert sample.table.column_names == ["age", "TSH", "T3", "TT4", "T4U", "FTI"]
    assert dict(zip(*np.unique(sample.classes, return_counts=True), strict=True)) == {
        "compensated hypothyroid": 191,
        "negative": 3488,
        "primary hypothyroid": 93,
    }
    assert np.array_equal(sample.labels == 1, sample.classes == "primary hypothyroid")


def test_the_numbers_agree_with_their_names():
    """FTI is TT4 / T4U in the clinic's units, and a failing gland shows in TSH and TT4."""
    sample = load_sample("thyroid")
    column = {name: sample.table[name].to_numpy() for name in sample.table.column_names}
    assert np.median(np.abs(column["TT4"] / column["T4U"] / column["FTI"] - 1)) < 0.01
    sick = sample.labels == 1
    assert np.median(column["TSH"][sick]) > 10 * np.median(column["TSH"][~sick])
    assert np.median(column["TT4"][sick]) < 0.5 * np.median(column["TT4"][~sick])
    assert 1 <= column["age"].min() < column["age"].max() < 100


def test_a_guard_accepts_the_table():
    schema = Schema.infer(load_sample("thyroid").table)
    assert [column.kind for column in schema.columns] == ["numeric"] * 6
    assert all(column.lattice is not None for column in schema.columns)


def test_an_unknown_sample():
    with pytest.raises(ConfigError, match="'none'; there are thyroid"):
        load_sample("none")


def test_samples_are_small_and_their_origin_is_noted():
    folder = resources.files("pushforward.data.samples")
    sizes = {file.name: len(file.read_bytes()) for file in folder.iterdir() if file.is_file()}
    images = sum(size for name, size in sizes.items() if name.endswith(".npz"))
    assert images < 6_000_000
    assert sum(sizes.values()) - images < 1_000_000
    notes = (folder / "README.md").read_text()
    assert all(f"{name}.csv.gz" in notes for name in SAMPLES)
    assert all(f"{name}.npz" in notes for name in IMAGE_SAMPLES)


@pytest.mark.parametrize(
    ("name", "part", "count"),
    [("fashion-mnist", "train", 5000), ("fashion-mnist", "test", 1000), ("mnist", "test", 1000)],
)
def test_images(name, part, count):
    images = load_image_sample(name, part)
    assert images.shape == (count, 28, 28)
    assert images.dtype == np.uint8
    assert images.max() == 255
    assert len(np.unique(images.reshape(count, -1), axis=0)) > 0.99 * count


def test_digits_are_darker_than_clothes():
    """The means of the originals are 33 and 73 gray levels."""
    assert load_image_sample("mnist").mean() == pytest.approx(33, abs=5)
    assert load_image_sample("fashion-mnist").mean() == pytest.approx(73, abs=5)


def test_unknown_images():
    with pytest.raises(ConfigError, match="there are fashion-mnist"):
        load_image_sample("mnist", "train")
