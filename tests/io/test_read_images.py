"""Images in files and folders."""

import gzip
import io
import struct
import sys
import types
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps

from pushforward.data import as_images
from pushforward.errors import ConfigError, InputError, StorageError
from pushforward.io import holds_images, read_images, stream_images

GRAY = np.random.default_rng(0).integers(0, 256, (5, 4, 6), dtype=np.uint8)
COLOR = np.random.default_rng(1).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


def idx(array: np.ndarray, code: int = 8) -> bytes:
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def encoded(array: np.ndarray, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("ending", ["-idx3-ubyte", "-idx3-ubyte.gz"])
def test_idx(tmp_path, ending: str):
    file = tmp_path / f"images{ending}"
    file.write_bytes(gzip.compress(idx(GRAY)) if ending.endswith("gz") else idx(GRAY))
    assert torch.equal(read_images(file), as_images(GRAY))


def test_idx_of_16_bits_is_big_endian(tmp_path):
    file = tmp_path / "images.idx"
    file.write_bytes(idx(np.array([[[1, 300]]], dtype=">i2"), 0x0B))
    assert read_images(file).flatten().tolist() == [1, 300]


def test_numpy_files(tmp_path):
    np.save(tmp_path / "a.npy", COLOR)
    assert torch.equal(read_images(tmp_path / "a.npy"), as_images(COLOR))
    np.savez(tmp_path / "two.npz", train=GRAY, test=COLOR)
    assert torch.equal(read_images(tmp_path / "two.npz", array="test"), as_images(COLOR))
    with pytest.raises(InputError, match="train, test"):
        read_images(tmp_path / "two.npz")
    with pytest.raises(ConfigError, match="no array 'other'"):
        read_images(tmp_path / "two.npz", array="other")


def test_parquet_of_encoded_images(tmp_path):
    file = tmp_path / "a.parquet"
    cells = [encoded(image) for image in COLOR]
    pq.write_table(pa.table({"label": [1] * 5, "image": cells, "thumbnail": cells[::-1]}), file)
    assert torch.equal(read_images(file), as_images(COLOR))
    assert torch.equal(read_images(file, column="thumbnail"), as_images(COLOR[::-1]))
    with pytest.raises(ConfigError, match="'label'"):
        read_images(file, column="label")
    pq.write_table(pa.table({"picture": [{"bytes": cell, "path": None} for cell in cells]}), file)
    assert torch.equal(read_images(file), as_images(COLOR))
    pq.write_table(pa.table({"a": cells, "b": cells}), file)
    with pytest.raises(ConfigError, match="column="):
        read_images(file)
    pq.write_table(pa.table({"image": [cells[0], None]}), file)
    with pytest.raises(InputError, match="row 1"):
        read_images(file)


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    (tmp_path / "sub").mkdir()
    for name, image in zip(["b.png", "a.png", "sub/c.png"], GRAY, strict=False):
        (tmp_path / name).write_bytes(encoded(image))
    (tmp_path / "notes.txt").write_text("no image")
    assert torch.equal(read_images(tmp_path), as_images(GRAY[[1, 0, 2]]))


def test_one_color_image_makes_all_of_them_color(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(GRAY[0]))
    (tmp_path / "b.png").write_bytes(encoded(COLOR[0]))
    images = read_images(tmp_path)
    assert images.shape == (2, 3, 4, 6)
    assert torch.equal(images[0], torch.from_numpy(GRAY[0]).expand(3, 4, 6))


def test_16_bit_pictures_keep_their_values(tmp_path):
    deep = np.array([[0, 1000], [65535, 7]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert read_images(tmp_path).flatten().tolist() == [0, 1000, 65535, 7]


def test_unequal_sizes_name_the_file(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(GRAY[0]))
    (tmp_path / "b.png").write_bytes(encoded(GRAY[1][:3]))
    with pytest.raises(InputError, match=r"b\.png is 6 wide and 3 high"):
        read_images(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.png", b"no picture", "is not an image"),
        ("a.txt", b"no picture", "not a file of images"),
        ("a.idx", idx(GRAY)[:-1], "damaged"),
        ("a.idx", bytes([0, 0, 8, 3]), "damaged"),
        ("a.gz", b"not gzip", "damaged"),
        ("a.npy", b"junk", "damaged"),
        ("a.npz", b"PK junk", "damaged"),
        ("a.parquet", b"junk", "damaged"),
    ],
)
def test_damaged_files(tmp_path, name: str, content: bytes, words: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StorageError, match=words):
        read_images(tmp_path / name)


def test_damaged_pictures_and_empty_folders(tmp_path):
    with pytest.raises(StorageError, match="no image files"):
        read_images(tmp_path)
    (tmp_path / "a.png").write_bytes(encoded(GRAY[0])[:20])
    with pytest.raises(StorageError, match=r"a\.png is not an image"):
        read_images(tmp_path)
    with pytest.raises(StorageError, match="there is no file"):
        read_images(tmp_path / "absent")


def test_labels_are_not_images(tmp_path):
    (tmp_path / "labels").write_bytes(idx(np.arange(5, dtype=np.uint8)))
    with pytest.raises(InputError, match="labels"):
        read_images(tmp_path / "labels")


def test_pickles_are_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(InputError, match="Python objects"):
        read_images(tmp_path / "a.npy")


class Digits:
    """A data set with the interface of torchvision."""

    def __init__(self, root: str, train: bool = True, download: bool = True) -> None:
        if root != "here":
            raise RuntimeError("Dataset not found.")
        assert not download
        self.data = torch.full((2, 3, 3), int(train), dtype=torch.uint8)


def test_torchvision_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(
        sys.modules, "torchvision", types.SimpleNamespace(datasets=types.SimpleNamespace(Digits=Digits))
    )
    assert read_images("torchvision:Digits:here").max() == 1
    assert read_images("torchvision:Digits:here", train=False).max() == 0
    with pytest.raises(StorageError, match="finds no Digits in there"):
        read_images("torchvision:Digits:there")
    with pytest.raises(ConfigError, match="no data set 'Letters'"):
        read_images("torchvision:Letters:here")


def test_without_torchvision_the_error_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ConfigError, match="pip install torchvision"):
        read_images("torchvision:MNIST:.")


def test_images_and_tables_are_distinguished(tmp_path):
    np.save(tmp_path / "i.npy", np.zeros((2, 3, 3), np.uint8))
    np.save(tmp_path / "t.npy", np.zeros((2, 3)))
    np.savez(tmp_path / "i.npz", np.zeros((2, 3, 3), np.uint8))
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 3, 3)), b=np.zeros(2))
    (tmp_path / "idx.gz").write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + bytes(12)))
    (tmp_path / "labels").write_bytes(bytes([0, 0, 8, 1]) + bytes(4))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(encoded(GRAY[0]))
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.csv").write_text("a,b\n1,2\n")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    found = {path.name for path in [*tmp_path.iterdir(), tmp_path / "absent"] if holds_images(path)}
    assert found == {"i.npy", "i.npz", "idx.gz", "pictures"}


def test_hidden_files_are_no_images(tmp_path):
    for name in ("a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 3)).save(tmp_path / name)
    (tmp_path / "._a.png").write_bytes(b"no picture")
    assert read_images(tmp_path).shape == (1, 1, 3, 4)
    hidden = tmp_path / ".hidden"  # a folder that the user names is read
    hidden.mkdir()
    Image.new("L", (4, 3)).save(hidden / "a.png")
    assert read_images(hidden).shape == (1, 1, 3, 4)


def test_one_picture_is_a_stack_of_one(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    assert holds_images(tmp_path / "a.png")
    assert read_images(tmp_path / "a.png").shape == (1, 3, 3, 4)
    assert [part.shape for part in stream_images(tmp_path / "a.png", 5)] == [(1, 3, 3, 4)]


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "webp"])
def test_pictures_are_turned_upright(tmp_path, kind: str):
    rng = np.random.default_rng(0)
    for orientation in range(1, 9):
        flat = (
            orientation < 5
        )  # the other four exchange width and height: all pictures are 8 wide and 6 high in the end
        picture = Image.fromarray(rng.integers(0, 255, (6, 8, 3) if flat else (8, 6, 3), dtype=np.uint8))
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(tmp_path / f"{orientation}.{kind}", exif=exif)
    expected = np.stack(
        [np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / f"{k}.{kind}"))) for k in range(1, 9)]
    )
    assert np.array_equal(read_images(tmp_path), as_images(expected))
    assert np.array_equal(torch.cat(list(stream_images(tmp_path, rows=3))), as_images(expected))


def test_frames_after_the_first_are_not_dropped(tmp_path):
    frames = [Image.fromarray(array) for array in GRAY]
    for kind in ("gif", "png", "tiff", "webp"):
        folder = tmp_path / kind
        folder.mkdir()
        frames[0].save(folder / f"a.{kind}", save_all=True, append_images=frames[1:])
        for read in (read_images, lambda path: list(stream_images(path, 2))):
            with pytest.raises(InputError, match=rf"a\.{kind} has 5 frames, and a picture is one: save the frames"):
                read(folder)
        with Image.open(folder / f"a.{kind}") as picture, pytest.raises(InputError, match="image 1 has 5 frames"):
            as_images([frames[0], picture])
    frames[0].convert("RGB").save(
        tmp_path / "camera.jpg", "MPO", save_all=True, append_images=[frames[1].convert("RGB")]
    )
    assert read_images(tmp_path / "camera.jpg").shape == (1, 3, 4, 6)  # the second one is a preview


def test_a_picture_with_colors_among_gray_ones_is_named(tmp_path):
    for name, mode in (("a.png", "L"), ("b.tiff", "RGB"), ("c.png", "RGB")):
        Image.new(mode, (4, 3)).save(tmp_path / name)
    readers = read_images, lambda path, gray: torch.cat(list(stream_images(path, 2, gray=gray)))
    for read in readers:  # pictures without colors are gray in any mode
        assert read(tmp_path, gray=True).shape == (3, 1, 3, 4)
    Image.new("CMYK", (4, 3), (90, 0, 0, 0)).save(tmp_path / "b.tiff")
    for read in readers:
        with pytest.raises(InputError, match=r"b\.tiff has colors, and the images must be gray: convert it"):
            read(tmp_path, gray=True)
    assert read_images(tmp_path).shape == (3, 3, 3, 4)


def deep_png(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write: (h, w, 3) RGB, (h, w, 2) gray with transparency."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, channels = pixels.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 2: 4, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_bits_that_pillow_would_drop_are_refused(tmp_path, channels: int):
    body = deep_png(np.full((4, 6, channels), 300, np.uint16))
    (tmp_path / "a.png").write_bytes(body)
    for read in (read_images, lambda path: list(stream_images(path, 2))):
        with pytest.raises(InputError, match=r"a\.png has channels of 16 bits, of which only 8 could be read"):
            read(tmp_path)
    with pytest.raises(InputError, match="image 0 has channels of 16 bits"):
        as_images([Image.open(io.BytesIO(body))])


def test_a_picture_of_another_range_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(GRAY[0]))
    Image.fromarray(GRAY[0].astype(np.uint16) * 256).save(tmp_path / "b.png")
    for read in (read_images, lambda path: list(stream_images(path, 2))):
        with pytest.raises(InputError, match=r"the first image has 8 bits, and .*b\.png has more: convert one"):
            read(tmp_path)
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    with pytest.raises(InputError, match=r"c\.png has 8 bits, and the first image has more: convert one"):
        read_images(tmp_path)


def test_damaged_bytes_are_called_the_picture(tmp_path):
    pq.write_table(pa.table({"image": [b"no picture"]}), tmp_path / "a.parquet")
    with pytest.raises(StorageError, match="cannot identify image file the picture"):
        read_images(tmp_path / "a.parquet")


def test_the_folder_of_the_user_and_names_as_text(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "i.npy", np.zeros((2, 3, 3), np.uint8))
    assert len(read_images("~/i.npy")) == 2
    assert [len(part) for part in stream_images("~/i.npy", 1)] == [1, 1]
    assert holds_images("~/i.npy")
    assert not holds_images("x.csv")


def test_linked_folders_are_read_and_links_to_nothing_are_an_error(tmp_path) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    for k, place in enumerate((folder, other)):
        place.mkdir()
        (place / "1.png").write_bytes(encoded(GRAY[k]))
    (folder / "linked").symlink_to(other)
    (folder / "again").symlink_to(folder)
    assert torch.equal(read_images(folder), as_images(GRAY[:2]))
    (folder / "2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(StorageError, match=r"2\.png"):
        read_images(folder)


def test_structures_with_a_number_of_bytes_are_no_images(tmp_path) -> None:
    pq.write_table(pa.table({"traffic": [{"bytes": 1200, "host": "a"}]}), tmp_path / "t.parquet")
    assert not holds_images(tmp_path / "t.parquet")
