"""A guard of images, served: pictures in, alarms out, and the picture on the page of the event."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from service_helpers import Server
from sklearn.datasets import load_digits

from pushforward import Guard
from pushforward.errors import InputError
from pushforward.service.inference_protocol import metadata
from pushforward.service.inputs import Reader
from pushforward.service.refusal import Refusal


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """1,797 handwritten digits of 8 x 8 pixels, 8-bit."""
    return (load_digits().images * 15.9).astype(np.uint8)


@pytest.fixture(scope="module")
def guard(digits) -> Guard:
    return Guard(alpha=0.05, max_steps=5, random_state=0).fit(digits[:600])


@pytest.fixture(scope="module")
def digit_server(guard, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("digits")
    guard.save(folder / "digits.safetensors")
    running = Server(folder, "digits.safetensors", "--durability", "strict", "--store-inputs")
    yield running
    running.stop()


def encoded(picture: np.ndarray, kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.fromarray(picture).save(sink, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return sink.getvalue()


def decoded(body: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(body)))


def test_pictures_and_arrays_get_the_p_value_of_the_guard(digit_server, guard, digits):
    noise = np.random.default_rng(0).integers(0, 255, (8, 8)).astype(np.uint8)
    for picture, alarm in ((digits[700], False), (noise, True)):
        want = float(guard.p_value(picture[None])[0])
        post = digit_server.client.post
        sink = io.BytesIO()
        np.save(sink, picture[None])
        answers = [
            post("/score", content=encoded(picture), headers={"content-type": "image/png"}),
            post("/score", content=sink.getvalue(), headers={"content-type": "application/x-npy"}),
            post("/score", json={"images": [picture.tolist()]}),
            post("/score", json={"images": [base64.b64encode(encoded(picture)).decode()]}),
        ]
        for answer in answers:
            assert answer.status_code == 200, answer.text
            (row,) = answer.json()["rows"]
            assert row["p_value"] == want
            assert row["alarm"] is alarm
        exif = Image.Exif()
        exif[0x0112] = 6  # the top of the picture is at the right of its file
        sink = io.BytesIO()
        Image.fromarray(np.rot90(picture)).save(sink, "PNG", exif=exif)
        answer = post("/score", content=sink.getvalue(), headers={"content-type": "image/png"})
        assert answer.json()["rows"][0]["p_value"] == want
        jpeg = encoded(picture, "JPEG")
        answer = post("/score", content=jpeg, headers={"content-type": "image/jpeg"})
        assert answer.json()["rows"][0]["p_value"] == float(guard.p_value(decoded(jpeg)[None])[0])


def test_the_event_shows_the_picture_that_was_scored(digit_server, digits):
    body = encoded(digits[701])
    answer = digit_server.client.post("/score", content=body, headers={"content-type": "image/png"})
    identifier = answer.json()["rows"][0]["id"]
    page = digit_server.client.get(f"/event/{identifier}")
    assert page.status_code == 200
    assert f"/event/{identifier}/image.png" in page.text
    shown = digit_server.client.get(f"/event/{identifier}/image.png")
    assert shown.headers["content-type"] == "image/png"
    enlarged = decoded(shown.content)
    factor = len(enlarged) // 8
    np.testing.assert_array_equal(enlarged[::factor, ::factor], digits[701])


def test_a_picture_of_another_size_is_refused(digit_server):
    body = encoded(np.zeros((9, 8), dtype=np.uint8))
    answer = digit_server.client.post("/score", content=body, headers={"content-type": "image/png"})
    assert answer.status_code == 422
    assert "8 x 9" in answer.json()["error"]


def test_a_gray_picture_saved_in_color_is_gray_and_colors_are_refused(digit_server, guard, digits):
    post = digit_server.client.post
    picture = np.repeat(digits[702][..., None], 3, axis=-1)
    want = float(guard.p_value(digits[702][None])[0])
    for body in (encoded(picture), encoded(np.dstack([picture, np.full((8, 8), 90, np.uint8)]))):  # RGB and RGBA
        answer = post("/score", content=body, headers={"content-type": "image/png"})
        assert answer.json()["rows"][0]["p_value"] == want
    assert post("/score", json={"images": picture[None].tolist()}).json()["rows"][0]["p_value"] == want
    picture[3, 3, 0] ^= 1
    answer = post("/score", content=encoded(picture), headers={"content-type": "image/png"})
    assert answer.status_code == 422
    assert "image 0 has colors, and the images must be gray" in answer.json()["error"]
    answer = post("/score", json={"images": picture[None].tolist()})
    assert answer.status_code == 422
    assert "this guard reads gray images" in answer.json()["error"]


def test_a_gray_picture_for_a_guard_of_colors_has_three_equal_channels(digits):
    colors = np.stack([digits[:300], digits[300:600], digits[600:900]], axis=-1)
    guard = Guard(alpha=0.05, max_steps=2, random_state=0).fit(colors)
    reader = Reader(guard, 10)
    both = reader.pictures([encoded(digits[0]), encoded(colors[0])])
    np.testing.assert_array_equal(both.data, [np.repeat(digits[0][None], 3, 0), colors[0].transpose(2, 0, 1)])
    for alone in (reader.pictures([encoded(digits[0])]), reader.numbers(digits[:1])):
        np.testing.assert_array_equal(alone.data, both.data[:1])
    for read in (reader.numbers, guard.p_value):
        with pytest.raises((InputError, Refusal), match="is one color image or three gray ones: give"):
            read(digits[:3])


def test_the_protocol_names_a_type_that_holds_the_numbers(guard, digits):
    deep = Guard(alpha=0.05, max_steps=2, random_state=0).fit(digits[:600].astype(np.uint16) * 16)
    for fitted, kind in ((guard, "UINT8"), (deep, "UINT16")):
        model = SimpleNamespace(guard=fitted, reader=Reader(fitted, 10), name="m")
        assert metadata(cast(Any, model), ["1"])["inputs"][0]["datatype"] == kind


def test_a_damaged_picture_is_refused(digit_server, digits):
    body = encoded(digits[0])
    for cut in (body[: len(body) // 2], b"", body[:8] + bytes(50)):
        answer = digit_server.client.post("/score", content=cut, headers={"content-type": "image/png"})
        assert 400 <= answer.status_code < 500, answer.text


def test_metadata_names_the_shape_of_an_image(digit_server):
    answer = digit_server.client.get("/v2/models/digits").json()
    assert answer["inputs"][0]["shape"] == [-1, 1, 8, 8]
