"""`Guard` on stacks of images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pushforward import Guard
from pushforward.cli import main
from pushforward.data import load_image_sample
from pushforward.detection import auroc, realized_interval
from pushforward.detection.image_score import value_range
from pushforward.errors import ConfigError, InputError, PushforwardWarning, StorageError
from pushforward.io import read, read_images, write

OPTIONS = {"alpha": 0.05, "max_steps": 60, "random_state": 0}


@pytest.fixture(scope="module")
def guard() -> Guard:
    return Guard(**OPTIONS).fit(load_image_sample("fashion-mnist", "train")[:2000])


@pytest.fixture(scope="module")
def clothes() -> np.ndarray:
    return load_image_sample("fashion-mnist")


def test_false_alarm_rate_and_digits_among_clothes(guard, clothes):
    fine, odd = guard.assess(clothes), guard.assess(load_image_sample("mnist"))
    assert set(fine) == {"anomaly_score", "p_value", "alarm"}
    low, high = realized_interval(500, 1000, 0.05, level=0.999)
    assert low <= fine["alarm"].mean() <= high
    assert auroc(fine["anomaly_score"], odd["anomaly_score"]) > 0.85
    assert odd["alarm"].mean() > 0.5


def test_arrays_of_other_shapes_and_types_have_the_same_scores(guard, clothes):
    some = clothes[:7]
    expected = guard.anomaly_score(some)
    for same in (some[..., None], some[:, None], torch.from_numpy(some), some.astype(np.int64), some.astype(float)):
        assert np.array_equal(guard.anomaly_score(same), expected)
    assert np.array_equal(guard.anomaly_score(some[3:4]), expected[3:4])
    assert np.array_equal(guard.score_samples(some), -expected)
    assert guard.p_value(some).shape == guard.predict(some).shape == (7,)
    assert guard.select(clothes[:50]).dtype == bool


def test_through_a_file(guard, clothes, tmp_path):
    guard.save(tmp_path / "g.safetensors")
    again = Guard.load(tmp_path / "g.safetensors")
    assert np.array_equal(again.anomaly_score(clothes[:20]), guard.anomaly_score(clothes[:20]))
    assert again.get_params() == guard.get_params()
    assert again.n_features_in_ == guard.n_features_in_ == 784


def test_a_file_whose_parts_do_not_fit(guard, tmp_path):
    guard.save(tmp_path / "g.safetensors")
    header, tensors = read(tmp_path / "g.safetensors", kind="guard")
    for name in [name for name in tensors if name.endswith((".center", ".directions", ".mean"))]:
        wrong = dict(tensors)
        wrong[name] = torch.zeros([size + 1 for size in wrong[name].shape], dtype=torch.float64)
        write(tmp_path / "bad.safetensors", header, wrong)
        with pytest.raises(StorageError):
            Guard.load(tmp_path / "bad.safetensors")


def test_bad_images(guard):
    for wrong, words in (
        (np.zeros((2, 14, 14), dtype=np.uint8), r"\(1, 28, 28\)"),
        (np.arange(2 * 28 * 28 * 3).reshape(2, 28, 28, 3) % 256, r"\(1, 28, 28\)"),
        (np.full((2, 28, 28), 0.5), "integers|whole"),
        (np.zeros((3, 784)), "images|stack|shape"),
    ):
        with pytest.raises(InputError, match=words):
            guard.anomaly_score(wrong)
    for method in (guard.explain, lambda x: guard.sample(3)):
        with pytest.raises(ConfigError, match="images"):
            method(np.zeros((1, 28, 28), dtype=np.uint8))


def test_too_few_or_impossible_images():
    with pytest.warns(PushforwardWarning, match="needs 99"), pytest.raises(InputError, match="at least 40 images"):
        Guard(alpha=0.01).fit(np.zeros((50, 8, 8), dtype=np.uint8))
    with pytest.raises(InputError, match="at least 40 images"):
        Guard(alpha=0.2).fit(np.zeros((30, 8, 8), dtype=np.uint8))
    with pytest.raises(ConfigError, match="'maf'"):
        Guard(alpha=0.05, model="maf").fit(np.zeros((200, 8, 8), dtype=np.uint8))


@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (9, 9, 3), (60, 50)])
def test_any_size(shape):
    rng = np.random.default_rng(0)
    images = rng.integers(100, 140, size=(200, *shape)).astype(np.uint8)
    guard = Guard(alpha=0.1, max_steps=3, random_state=0).fit(images)
    assert np.isfinite(guard.anomaly_score(images[:3])).all()
    assert (guard.predict(np.full((2, *shape), 255, dtype=np.uint8)) == -1).all()


def test_16_bits_and_black_images():
    rng = np.random.default_rng(0)
    guard = Guard(alpha=0.1, max_steps=3, random_state=0).fit(rng.integers(0, 2**16, size=(200, 4, 4)))
    assert guard.score_.shift == 8
    assert np.isfinite(guard.anomaly_score(np.zeros((1, 4, 4), dtype=np.uint16))).all()
    black = Guard(alpha=0.1, max_steps=3, random_state=0).fit(np.zeros((200, 4, 4), dtype=np.uint8))
    assert (black.predict(np.zeros((2, 4, 4), dtype=np.uint8)) == 1).all()


def faint(count: int, seed: int, *, upside_down: bool = False) -> np.ndarray:
    """16-bit images with a gradient of 100 levels around 30,000, as of a thermal camera."""
    rng = np.random.default_rng(seed)
    rows = np.linspace(0, 100, 8)[:: -1 if upside_down else 1]
    return (30_000 + rows[:, None] + rng.normal(scale=5, size=(count, 8, 8))).round().astype(np.uint16)


def test_few_levels_of_16_bits_are_seen(tmp_path):
    guard = Guard(alpha=0.1, max_steps=3, random_state=0).fit(faint(200, 0))
    assert guard.score_.shift == 0
    assert guard.score_.offset < 30_000 - 40 < 30_100 + 40 < guard.score_.top
    assert (guard.predict(faint(20, 1)) == -1).mean() < 0.5
    other = faint(20, 2, upside_down=True)
    assert (guard.predict(other) == -1).all()
    guard.save(tmp_path / "guard.safetensors")
    assert (Guard.load(tmp_path / "guard.safetensors").p_value(other) == guard.p_value(other)).all()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 255, (0, 0)), (200, 255, (0, 0)), (0, 4095, (0, 4)), (0, 4000, (0, 5)), (0, 65_530, (0, 8)), (60_000, 65_535, (58_672, 5)),
        (30_000, 30_100, (29_923, 0)), (30_000, 30_254, (29_872, 1)), (0, 2**20 - 1, (0, 13)),
    ],
)  # fmt: skip
def test_the_range_of_deep_images_has_room(low, high, expected):
    assert value_range((torch.tensor([low]), torch.tensor([high]))) == expected
    offset, shift = expected
    assert offset <= low <= high < offset + (256 << shift)


def test_numbers_beyond_the_range_are_alarms_of_their_images_alone():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 1500, size=(200, 4, 4)).astype(np.uint16)
    guard = Guard(alpha=0.1, max_steps=3, random_state=0).fit(images)
    assert (guard.score_.offset, guard.score_.top) == (0, 2047)
    new = images[:4].copy()
    expected = guard.anomaly_score(new)
    new[2, 0, 0] = 4000
    with pytest.warns(PushforwardWarning, match="outside 0 to 2047"):
        found = guard.anomaly_score(new)
    assert found[2] == np.inf
    assert (found[[0, 1, 3]] == expected[[0, 1, 3]]).all()
    with pytest.warns(PushforwardWarning, match="outside 0 to 2047"):
        assert guard.predict(new)[2] == -1


def test_images_of_8_bits_are_compared_with_a_range_of_more():
    images = np.random.default_rng(0).integers(300, 1900, size=(200, 4, 4)).astype(np.uint16)
    guard = Guard(alpha=0.1, max_steps=3, random_state=0).fit(images)
    assert 0 < guard.score_.offset < 200 < 255 < guard.score_.top
    dark = np.full((1, 4, 4), 200, np.uint8)
    with pytest.warns(
        PushforwardWarning, match=rf"8 bits, and the training images have more, up to {guard.score_.top}"
    ):
        found = guard.anomaly_score(dark)
    assert (
        found == guard.anomaly_score(dark.astype(np.uint16))
    ).all()  # without a warning, which would be an error here


def test_images_of_0_and_1_among_gray_levels_give_a_warning(guard, clothes):
    assert guard.training_.columns[0].edges[0] > 1
    for wrong in (clothes[:3] > 127, np.round(clothes[:3] / 255)):
        with pytest.warns(PushforwardWarning, match="these images are 0 or 1, .* give the raw pixels, or 255"):
            guard.predict(wrong)
    guard.predict(np.zeros((2, 28, 28), np.uint8))  # black images are no other scale
    masks = Guard(alpha=0.1, max_steps=3, random_state=0).fit(np.random.default_rng(0).random((200, 8, 8)) < 0.5)
    assert (masks.predict(np.random.default_rng(1).random((20, 8, 8)) < 0.5) == 1).mean() > 0.5


def test_fit_refuses_an_array_that_is_one_color_image():
    image = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3)).astype(np.uint8)
    with pytest.raises(InputError, match=r"\(64, 64, 3\) looks like one color image, .* as \(64, 64, 3, 1\)"):
        Guard(alpha=0.2, max_steps=3).fit(image)


def test_a_table_after_images_and_back():
    rng = np.random.default_rng(0)
    guard = Guard(alpha=0.1, max_steps=3, random_state=0)
    guard.fit(rng.integers(0, 255, size=(200, 4, 4)).astype(np.uint8))
    guard.set_params(density=True).fit(rng.normal(size=(200, 3)))
    assert guard.anomaly_score(np.zeros((1, 3))).shape == (1,)
    assert not guard.reads_images
    assert guard.density_.shape == (3,)
    guard.set_params(density=False).fit(rng.integers(0, 255, size=(200, 4, 4)).astype(np.uint8))
    assert not hasattr(guard, "density_")


@pytest.mark.parametrize(
    "option",
    [{"density": True}, {"effort": "fast"}, {"strict": True}, {"max_contamination": 0.05}, {"store_rows": False}, {"ignore": ["a"]},
     {"n_estimators": 1}, {"n_draws": 2}, {"jitter": 0.1}],
    ids=str,
)  # fmt: skip
def test_options_of_tables_are_refused(option):
    with pytest.raises(ConfigError, match=f"{next(iter(option))} is an option for tables"):
        Guard(alpha=0.05, **option).fit(np.zeros((200, 4, 4), dtype=np.uint8))


@pytest.fixture(scope="module")
def colored() -> Guard:
    images = np.random.default_rng(0).integers(100, 140, size=(200, 6, 5, 3)).astype(np.uint8)
    return Guard(alpha=0.1, max_steps=3, random_state=0).fit(images)


def test_lists_of_pictures_are_the_same_images(colored):
    images = np.random.default_rng(1).integers(0, 256, size=(60, 6, 5, 3)).astype(np.uint8)
    expected = colored.score_samples(images)
    pictures = [Image.fromarray(image) for image in images]
    for same in (list(images), pictures, [picture.convert("RGBA") for picture in pictures]):
        assert np.array_equal(colored.score_samples(same), expected)
    few = [Image.fromarray(np.uint8(32 * (image // 32))).quantize(256) for image in images[:3]]  # with a palette
    assert all(picture.mode == "P" for picture in few)
    assert np.array_equal(
        colored.score_samples(few), colored.score_samples(np.stack([np.asarray(x.convert("RGB")) for x in few]))
    )
    a, b = (Guard(alpha=0.2, max_steps=2, random_state=0).fit(x) for x in (images, pictures))
    assert np.array_equal(a.score_samples(images), b.score_samples(images))
    with pytest.raises(
        InputError, match="image 60 is 5 wide and 5 high, and image 0 is 5 wide and 6 high: resize them"
    ):
        Guard(alpha=0.2).fit([*images, images[0][1:]])
    for paths in ("photographs", ["a.png"] * 100, [Path("a.png")] * 100):
        with pytest.raises(InputError, match=r"pf\.io\.read_images"):
            Guard(alpha=0.2).fit(paths)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, Image.fromarray, np.ndarray.tolist])
def test_the_first_image_of_another_size_is_named(colored, kind):
    image = np.zeros((6, 5, 3), np.uint8)
    for other, words in ((image[1:], "5 wide and 5 high"), (image[:, 2:], "3 wide and 6 high")):
        with pytest.raises(
            InputError, match=f"image 2 is {words}, and image 0 is 5 wide and 6 high: resize them to one size"
        ):
            colored.anomaly_score([kind(x) for x in (image, image, other, image[3:])])
    with pytest.raises(InputError, match="image 1 is 5 wide and 5 high, and image 0 is 5 wide and 6 high: resize"):
        colored.anomaly_score((image, Image.fromarray(image[1:])))


def test_images_of_one_size_and_different_shapes(colored):
    image = np.zeros((6, 5, 3), np.uint8)
    for other in (image[..., 0], np.moveaxis(image, 2, 0)):
        with pytest.raises(InputError, match=r"image 1 has \(.*\), and image 0 has \(6, 5, 3\): give all of them gray"):
            colored.anomaly_score([image, other])


def test_one_image_is_not_a_stack(colored, guard, clothes):
    image = np.zeros((6, 5, 3), np.uint8)
    assert colored.anomaly_score([image]) == colored.anomaly_score(image[None])
    for one in (image, torch.from_numpy(image)):
        with pytest.raises(
            InputError, match=r"\(6, 5, 3\) is one image: give \(1, 6, 5, 3\), or put the image in a list"
        ):
            colored.anomaly_score(one)
    with pytest.raises(InputError, match=r"is one color image or three gray ones: give \(1, 3, 6, 5\)"):
        colored.anomaly_score(np.moveaxis(image, 2, 0))
    for shape in ((40, 50, 3), (6, 5, 4)):
        with pytest.raises(InputError, match="is one image: give"):
            colored.anomaly_score(np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match=r"\(28, 28, 1\) is one image: give \(1, 28, 28, 1\)"):
        guard.anomaly_score(clothes[0][..., None])
    for picture in (Image.fromarray(image), Image.fromarray(image[..., 0])):
        for method in (colored.anomaly_score, Guard(alpha=0.2).fit):
            with pytest.raises(InputError, match="this is one picture, of type Image: give a list of pictures"):
                method(picture)


def test_a_narrow_image_is_not_a_stack():
    """The width of the images is a number of channels too."""
    images = np.random.default_rng(0).integers(100, 140, size=(200, 6, 3, 3)).astype(np.uint8)
    narrow = Guard(alpha=0.1, max_steps=3, random_state=0).fit(images)
    assert len(narrow.predict(images[:5, ..., 0])) == 5
    with pytest.raises(InputError, match=r"\(6, 3, 3\) is one image"):
        narrow.predict(images[0])
    with pytest.raises(InputError, match=r"got \(3, 7, 3\)"):
        narrow.predict(np.zeros((5, 7, 3), np.uint8))


def test_gray_images_for_a_guard_of_colored_ones(colored):
    gray = np.random.default_rng(1).integers(0, 256, size=(5, 6, 5)).astype(np.uint8)
    assert np.array_equal(colored.score_samples(gray), colored.score_samples(np.repeat(gray[..., None], 3, -1)))


def test_a_picture_with_colors_for_a_guard_of_gray_ones_is_named(tmp_path, capsys):
    images = np.random.default_rng(0).integers(100, 140, size=(200, 6, 5)).astype(np.uint8)
    gray = Guard(alpha=0.1, max_steps=3, random_state=0).fit(images)
    gray.save(tmp_path / "g")
    folder = tmp_path / "new"
    folder.mkdir()
    for name, mode, color in (("a.png", "L", 9), ("b.png", "RGB", (9, 0, 0))):
        Image.new(mode, (5, 6), color).save(folder / name)
    for command in (["score", "-o", str(tmp_path / "out.csv")], ["report", "-o", str(tmp_path / "out.html")]):
        assert main([command[0], str(tmp_path / "g"), str(folder), *command[1:]]) == 1
        assert "b.png has colors, and the images must be gray" in capsys.readouterr().err
    with pytest.raises(InputError, match="gray=True"):
        gray.anomaly_score(read_images(folder))
    Image.new("RGB", (5, 6), (9, 9, 9)).save(folder / "b.png")  # a gray picture that is saved in color
    np.testing.assert_array_equal(*gray.anomaly_score(read_images(folder)))
    assert main(["score", str(tmp_path / "g"), str(folder), "-o", str(tmp_path / "out.csv")]) == 0
