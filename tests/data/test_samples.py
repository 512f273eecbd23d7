"""The samples that come with the package agree with their description."""

from importlib import resources

import numpy as np
import pytest
import torch

from pushforward.data import (
    IMAGE_SAMPLES,
    SAMPLES,
    Schema,
    load_clothes_network,
    load_image_labels,
    load_image_sample,
    load_sample,
)
from pushforward.data.samples.network import CLOTHES, UNSEEN
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
    with pytest.raises(ConfigError, match="there are fashion-mnist"):
        load_image_labels("mnist", "train")


@pytest.mark.parametrize(("name", "part"), [("fashion-mnist", "train"), ("fashion-mnist", "test"), ("mnist", "test")])
def test_labels_belong_to_their_images(name, part):
    """The nearest other image has the same label far more often than the tenth of the cases that chance gives."""
    images, labels = load_image_sample(name, part)[:1000], load_image_labels(name, part)
    assert len(labels) == len(load_image_sample(name, part))
    assert set(labels) == set(range(10))
    rows = torch.from_numpy(images).flatten(1).double()
    nearest = (torch.cdist(rows, rows) + torch.diag(torch.full((len(rows),), torch.inf))).argmin(1).numpy()
    assert (labels[:1000][nearest] == labels[:1000]).mean() > 0.7


def test_the_network_is_as_accurate_on_images_that_it_has_not_seen():
    """Stated: 94.7 % of the images of training, 92.3 % of the 2,000 that are left out, 91.3 % of the 10,000 test images."""
    net = load_clothes_network()
    assert not net.training
    assert net.head.out_features == len(CLOTHES)

    def correct(part: str) -> torch.Tensor:
        images, labels = load_image_sample("fashion-mnist", part), load_image_labels("fashion-mnist", part)
        with torch.no_grad():
            return net(torch.from_numpy(images)[:, None] / 255).argmax(1) == torch.from_numpy(labels)

    train, test = correct("train").double(), correct("test").double()
    # binomial standard errors: 0.0041 of 3,000 images, 0.0060 of 2,000, 0.0089 of 1,000
    assert float(train[UNSEEN:].mean()) == pytest.approx(0.947, abs=0.0165)
    assert float(train[:UNSEEN].mean()) == pytest.approx(0.923, abs=1e-3)
    assert float(test.mean()) == pytest.approx(0.913, abs=0.036)
