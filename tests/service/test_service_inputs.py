"""Bodies of every format as rows, and hostile ones refused."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from service_helpers import NORMAL, rows_like_training

from pushforward import Guard
from pushforward.data import Schema
from pushforward.errors import SchemaError
from pushforward.service import arrow_check
from pushforward.service.answers import read_invocations, read_score
from pushforward.service.inference_protocol import read_infer
from pushforward.service.inputs import Inputs, Reader
from pushforward.service.refusal import Refusal
from pushforward.service.served import ServedModel
from pushforward.service.store.modelbook import Entry

JSON = "application/json"


@pytest.fixture(scope="module")
def guard(guard_file) -> Guard:
    return Guard.load(guard_file)


@pytest.fixture(scope="module")
def reader(guard) -> Reader:
    return Reader(guard, 500)


@pytest.fixture(scope="module")
def numbers(number_guard_file) -> Reader:
    return Reader(Guard.load(number_guard_file), 500)


class ImageGuard:
    """What a reader needs of a guard of 8 x 8 gray images; fitting one takes minutes."""

    reads_images, n_features_in_ = True, 64
    score_ = SimpleNamespace(shape=(1, 8, 8))


@pytest.fixture
def images() -> Reader:
    return Reader(ImageGuard(), 50)  # pyright: ignore[reportArgumentType]


def arrow(table: pa.Table, **options) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def csv(table: pa.Table) -> bytes:
    return table.to_pandas().to_csv(index=False).encode()


def npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def png(array: np.ndarray, kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.fromarray(array).save(sink, kind)
    return sink.getvalue()


def test_a_name_in_another_case_is_named(reader):
    row = rows_like_training(1).to_pylist()[0]
    row["Country "] = row.pop("country")
    with pytest.raises(Refusal, match="lacks the column 'country', which the model has; it has 'Country '"):
        reader.records([row])
    long = {"x" * 10**6 + str(k): 0.0 for k in range(20)}  # not compared: it would take minutes
    with pytest.raises(Refusal, match=r"which the model has\.$"):
        reader.columns(long)


@pytest.mark.parametrize(
    ("fitted", "given", "hint"),
    [
        ("S\u00e4ule", "Sa\u0308ule", "which looks the same and has other Unicode characters: rename the columns"),
        ("age", " age", "with spaces: rename the columns"),
    ],
)
def test_a_name_that_looks_the_same_is_explained(fitted, given, hint):
    named = SimpleNamespace(reads_images=False, n_features_in_=1, schema_=Schema.infer(pa.table({fitted: [0.5, 1.5]})))
    with pytest.raises(Refusal, match=f"lacks the column '{fitted}', which the model has; it has '{given}', {hint}"):
        Reader(named, 9).records([{given: 1.0}])  # pyright: ignore[reportArgumentType]


def test_every_format_gives_the_scores_of_the_guard_itself(guard, guard_file, reader):
    table = rows_like_training(40)  # so many that the model itself scores them, bit for bit
    rows = table.to_pylist()
    want = guard.assess(table)
    model = ServedModel(Entry("m", "1", "d", True, True, 0.0), guard, 500)
    split = {"columns": table.column_names[::-1], "data": [[r[n] for n in table.column_names[::-1]] for r in rows]}
    bodies = {
        "records": read_score(reader, JSON, json.dumps({"rows": rows}).encode())[0],
        "list": read_score(reader, JSON, json.dumps(rows).encode())[0],
        "columns": read_score(reader, JSON, json.dumps({"columns": table.to_pydict()}).encode())[0],
        "names and rows": read_score(reader, JSON, json.dumps({"columns": split["columns"], "rows": split["data"]}).encode())[0],
        "csv": read_score(reader, "text/csv", csv(table))[0],
        "arrow": read_score(reader, "application/vnd.apache.arrow.stream", arrow(table))[0],
        "arrow, categories": read_score(
            reader, "application/vnd.apache.arrow.stream",
            arrow(table.set_column(3, "country", table["country"].dictionary_encode())),
        )[0],
        "mlflow split": read_invocations(reader, JSON, json.dumps({"dataframe_split": split}).encode()),
        "mlflow records": read_invocations(reader, JSON, json.dumps({"dataframe_records": rows}).encode()),
        "mlflow inputs": read_invocations(reader, JSON, json.dumps({"inputs": table.to_pydict()}).encode()),
    }  # fmt: skip
    for name, inputs in bodies.items():
        found = model.score(inputs)
        np.testing.assert_array_equal(found.score, want["anomaly_score"], err_msg=name)
        np.testing.assert_array_equal(found.p_value, want["p_value"], err_msg=name)
    few = model.score(Inputs.join([bodies["csv"].part(0, 2), bodies["list"].part(2, 5)]))  # compiled
    np.testing.assert_array_equal(few.p_value, want["p_value"][:5])
    np.testing.assert_array_equal(few.alarm, want["alarm"][:5])


def test_times_of_day_durations_and_a_category_na_have_the_scores_of_the_guard_itself() -> None:
    rng = np.random.default_rng(0)
    n = 200
    seconds = rng.integers(0, 86400, n)
    table = pa.table({
        "x": rng.normal(size=n), "land": rng.choice(["NA", "DE", "None"], n), "opened": pa.array(seconds, pa.int32()).cast(pa.time32("s")),
        "waited": pa.array(rng.integers(0, 900, n) * 10**9, pa.duration("ns")),
    })  # fmt: skip
    guard = Guard(alpha=0.05, effort="fast", random_state=0).fit(table)
    reader = Reader(guard, 500)
    some = table.slice(0, 9)
    waited = [wait.total_seconds() for wait in some["waited"].to_pylist()]
    written = some.set_column(2, "opened", some["opened"].cast(pa.string())).set_column(3, "waited", [waited])
    bodies = {
        "json": read_score(reader, JSON, json.dumps({"rows": written.to_pylist()}).encode())[0],
        "csv": read_score(reader, "text/csv", csv(written))[0],
        "arrow": read_score(reader, "application/vnd.apache.arrow.stream", arrow(some))[0],
    }
    for name, inputs in bodies.items():
        np.testing.assert_array_equal(guard.anomaly_score(inputs.data), guard.anomaly_score(some), err_msg=name)
    assert Inputs.join([bodies["csv"], bodies["arrow"]]).data.num_rows == 18  # of one type, so scored together


def test_numbers_that_are_written_as_text_are_read_as_by_the_guard_itself(guard, reader):
    texts = ["40", " 40 ", "4e1", "NA", "", "null", "inf", "1_0", "0x1F", "forty", "1,000"]
    for text in texts:
        table = pa.table({name: [text if name == "age" else value] for name, value in NORMAL.items()})
        bodies = {
            JSON: json.dumps([NORMAL | {"age": text}]).encode(),
            "application/vnd.apache.arrow.stream": arrow(table),
        }
        try:
            want = guard.anomaly_score(table)
        except SchemaError:
            want = None
        for media, body in bodies.items():
            if want is None:
                with pytest.raises(Refusal, match="not a number"):
                    read_score(reader, media, body)
            else:
                np.testing.assert_array_equal(guard.anomaly_score(read_score(reader, media, body)[0].data), want)


@pytest.mark.parametrize("cell", ["NaN", "-Infinity"])
def test_json_without_nan_says_what_to_send(reader, cell):
    with pytest.raises(Refusal, match="send null"):
        read_score(reader, JSON, json.dumps([NORMAL]).replace("40", cell).encode())


def test_tensors_of_the_protocol(guard, reader, numbers):
    table = rows_like_training(4)
    want = reader.records(table.to_pylist()).data
    tensors = [
        {
            "name": name,
            "shape": [4, 1],
            "datatype": "BYTES" if name == "country" else "FP64",
            "data": table[name].to_pylist(),
        }
        for name in table.column_names
    ]
    found, _ = read_infer(reader, json.dumps({"inputs": tensors}).encode(), None)
    assert found.data.equals(want)
    x = np.random.default_rng(0).normal(size=(5, 3))
    body = {"inputs": [{"name": "x", "shape": [5, 3], "datatype": "FP64", "data": x.reshape(-1).tolist()}]}
    np.testing.assert_array_equal(read_infer(numbers, json.dumps(body).encode(), None)[0].data, x)
    body["inputs"][0] |= {"parameters": {"binary_data_size": x.nbytes}}
    del body["inputs"][0]["data"]
    head = json.dumps(body).encode()
    found, _ = read_infer(numbers, head + x.tobytes(), str(len(head)))
    np.testing.assert_array_equal(found.data, x)
    text = b"".join(struct.pack("<I", 2) + b"NO" for _ in range(4))
    tensors[3] = {"name": "country", "shape": [4], "datatype": "BYTES", "parameters": {"binary_data_size": len(text)}}
    head = json.dumps({"inputs": tensors}).encode()
    assert read_infer(reader, head + text, str(len(head)))[0].data["country"].to_pylist() == ["NO"] * 4


def test_the_largest_integers_of_the_protocol_keep_all_digits(reader, numbers):
    large = [1, 2**63 + 1, 2**64 - 1]
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "UINT64", "data": large}]}
    assert read_infer(numbers, json.dumps(body).encode(), None)[0].data.tolist() == [[1.0, 2.0**63, 2.0**64]]
    columns = {"amount": [1, 1, 1], "age": [1, 1, 1], "ratio": [1, 1, 1], "country": large}
    tensors = [{"name": n, "shape": [3], "datatype": "UINT64", "data": cells} for n, cells in columns.items()]
    found = read_infer(reader, json.dumps({"inputs": tensors}).encode(), None)[0]
    assert found.data["country"].to_pylist() == [str(n) for n in large]
    for wrong in ([1, 2**63, -1], [0.5, 2**63, 1]):
        body["inputs"][0]["data"] = wrong
        with pytest.raises(Refusal, match="UINT64"):
            read_infer(numbers, json.dumps(body).encode(), None)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b"NaN", 400),
        (b"3", 422),
        (b"[]", 422),
        (b"[1]", 422),
        (b"{}", 422),
        (b'{"rows": []}', 422),
        (b'{"rows": {}}', 422),
        (b'{"rows": [[1, 2]]}', 422),
        (b'{"rows": [{"amount": 1}]}', 422),
        (json.dumps([NORMAL | {"amount": "many"}]).encode(), 422),
        (json.dumps([NORMAL | {"amount": [1]}]).encode(), 422),
        (json.dumps([NORMAL | {"amount": 10**400}]).encode(), 400),
        (json.dumps([NORMAL | {"country": {"a": 1}}]).encode(), 422),
        (json.dumps([NORMAL | {"country": "x" * 2000}]).encode(), 422),
        (json.dumps([NORMAL] * 501).encode(), 413),
        (json.dumps({"columns": {n: [] for n in NORMAL}}).encode(), 422),
        (json.dumps({"columns": {n: [1] * (1 + (n == "age")) for n in NORMAL}}).encode(), 422),
        (json.dumps({"columns": ["amount", "amount"], "rows": [[1, 2]]}).encode(), 422),
        (json.dumps({"images": ["aaaa"]}).encode(), 422),
    ],
)
def test_json_that_does_not_fit_is_refused(reader, body, status):
    with pytest.raises(Refusal) as error:
        read_score(reader, JSON, body)
    assert error.value.status == status
    assert len(error.value.text) < 400


@pytest.mark.parametrize(
    ("media", "body", "status"),
    [
        ("text/csv", b"", 422),
        ("text/csv", b"amount,age\n1,2\n", 422),
        ("text/csv", b"amount,age,ratio,country\nx,2,3,NO\n", 422),
        ("text/csv", b"amount,age,ratio,country\n", 422),
        ("text/csv", b"amount,age,ratio,country,age\n1,2,3,NO,4\n", 422),
        ("application/vnd.apache.arrow.stream", arrow(rows_like_training(3).slice(0, 0)), 422),
        ("text/csv", b"\xff\xfe\x00", 422),
        ("application/vnd.apache.arrow.stream", b"", 400),
        ("application/vnd.apache.arrow.stream", b"ARROW1\0\0" * 50, 400),
        ("application/x-npy", b"\x93NUMPY", 400),
        ("application/x-npy", b"\x80\x04pickle", 400),
        ("application/xml", b"<a/>", 415),
        ("", b"{}", 415),
        ("image/png", b"\x89PNG", 422),
    ],
)
def test_other_formats_that_do_not_fit_are_refused(reader, media, body, status):
    with pytest.raises(Refusal) as error:
        read_score(reader, media, body)
    assert error.value.status == status


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"amount;age;ratio;country\n1;2;3;NO\n", "separated by ';': separate the cells by commas"),
        (b"amount\tage\tratio\tcountry\n1\t2\t3\tNO\n", "separated by tabs"),
        (b"amount,age\n1,2\n", "the table lacks the column 'ratio' and 1 more"),
        (b"amount,age,ratio,country\n1,2,3,NO\n1,high,3,NO\n", "column 'age', row 1: 'high' is not a number"),
        (b"amount,age,ratio,country\n1,2,3,\xe9t\xe9\n", "not CSV in UTF-8"),
    ],
)
def test_csv_that_does_not_fit_is_refused_as_json_is(reader, body, words):
    with pytest.raises(Refusal, match=words) as refused:
        read_score(reader, "text/csv", body)
    assert refused.value.status == 422


def test_an_object_of_other_keys_is_told_what_to_send(reader):
    with pytest.raises(
        Refusal, match=r"the body has the keys 'data', and none is a column of the model: send \{\"rows\""
    ):
        read_score(reader, JSON, b'{"data": [1]}')


def test_every_cut_and_flipped_arrow_stream_is_read_or_refused(reader):
    body = arrow(rows_like_training(6))
    rng = np.random.default_rng(0)
    for at in range(0, len(body), 7):
        damaged = bytearray(body)
        damaged[at] ^= int(rng.integers(1, 256))
        for content in (body[:at], bytes(damaged)):
            with contextlib.suppress(Refusal):
                assert len(reader.arrow(content)) <= 500


def test_a_compressed_arrow_stream_is_refused_before_it_is_unpacked(reader):
    table = pa.table({"amount": np.zeros(400), "age": np.zeros(400), "ratio": np.zeros(400), "country": ["NO"] * 400})
    with pytest.raises(Refusal) as error:
        reader.arrow(arrow(table, compression="zstd"))
    assert error.value.status == 415
    assert len(reader.arrow(arrow(table))) == 400


def test_a_stream_that_hides_its_compression_as_old_writers_stated_it_is_refused(reader):
    """Before Arrow 1.0 a note of the message stated the compression, and not its record batch; pyarrow still reads it."""
    batch = pa.record_batch(
        {"amount": np.zeros(400), "age": np.zeros(400), "ratio": np.zeros(400), "country": ["NO"] * 400}
    )
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4, compression="zstd")
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch, custom_metadata={"ARROW:experimental_compression": "zstd"})
    body = bytearray(sink.getvalue())
    messages = pa.ipc.MessageReader.open_stream(pa.BufferReader(bytes(body)))
    metadata = next(m for m in messages if m.type == "record batch").metadata.to_pybytes()
    root = arrow_check._u32(metadata, 0)
    header = arrow_check._field(metadata, root, arrow_check._HEADER)
    table = header + arrow_check._u32(metadata, header)
    slot = table - struct.unpack_from("<i", metadata, table)[0] + 4 + 2 * arrow_check._COMPRESSION
    struct.pack_into("<H", body, bytes(body).find(metadata) + slot, 0)  # the record batch then states none
    assert pa.ipc.open_stream(pa.BufferReader(bytes(body))).read_all().num_rows == 400  # pyarrow unpacks it
    with pytest.raises(Refusal) as error:
        reader.arrow(bytes(body))
    assert error.value.status == 415


def test_rows_without_bytes_do_not_pass_the_limit(reader):
    nothing = pa.table({name: pa.nulls(10**6) for name in NORMAL})  # a null column of any length has no bytes
    with pytest.raises(Refusal) as error:
        reader.arrow(arrow(nothing))
    assert error.value.status == 413


def test_an_npy_header_that_promises_terabytes_is_refused(numbers):
    body = npy(np.zeros((2, 3))).replace(b"(2, 3), ", b"(9" + b"9" * 5 + b",3),")
    with pytest.raises(Refusal):
        numbers.array(body)
    assert len(numbers.array(npy(np.zeros((2, 3))))) == 2
    with pytest.raises(Refusal):
        numbers.array(npy(np.array([object()], dtype=object)))


def test_images(images):
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8)
    want = picture[None, None]
    text = base64.b64encode(png(picture)).decode()
    for inputs in (
        read_score(images, "image/png", png(picture))[0],
        read_score(images, JSON, json.dumps({"images": [picture.tolist()]}).encode())[0],
        read_score(images, JSON, json.dumps({"images": [text]}).encode())[0],
        read_score(images, "application/x-npy", npy(want))[0],
        read_infer(images, json.dumps({"inputs": [{"name": "i", "shape": [1, 8, 8], "datatype": "UINT8",
                                                   "data": picture.tolist()}]}).encode(), None)[0],
        read_infer(images, json.dumps({"inputs": [{"name": "i", "shape": [1], "datatype": "BYTES",
                                                   "data": [text]}]}).encode(), None)[0],
    ):  # fmt: skip
        assert inputs.data.shape == (1, 1, 8, 8)
        np.testing.assert_array_equal(inputs.data, want)
    assert read_score(images, "image/jpeg", png(picture, "JPEG"))[0].data.shape == (1, 1, 8, 8)


def test_an_image_bomb_is_refused_from_its_header(images):
    width = height = 60_000  # 3.6 gigapixels in a few kilobytes
    head = b"\x89PNG\r\n\x1a\n"

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    body = head + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body += chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    with pytest.raises(Refusal) as error:
        images.pictures([body])
    assert error.value.status == 422


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP"])
def test_other_picture_formats_are_not_decoded(images, kind):
    with pytest.raises(Refusal):
        images.pictures([png(np.zeros((8, 8), np.uint8), kind)])


@pytest.mark.parametrize("header", ["{'descr': (", "{'descr': '''", "(" * 3000, "-" * 5000 + "1", "{'descr': '<f8'"])
def test_an_npy_header_that_is_damaged_is_refused(numbers, header):
    line = (header + "\n").encode()
    with pytest.raises(Refusal) as error:
        numbers.array(b"\x93NUMPY\1\0" + struct.pack("<H", len(line)) + line + bytes(24))
    assert error.value.status == 400


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": []},
        {"inputs": [3]},
        {"inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP64", "data": [1, 2]}]},
        {"inputs": [{"name": "x", "shape": [-1, 3], "datatype": "FP64", "data": []}]},
        {"inputs": [{"name": "x", "shape": [2**40], "datatype": "FP64", "data": []}]},
        {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "COMPLEX", "data": [1, 2, 3]}]},
        {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP64", "parameters": {"binary_data_size": 24}}]},
        {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [[1], [2, 3]]}]},
        {
            "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}],
            "outputs": [{"name": "logits"}],
        },
        {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}], "id": 3},
    ],
)
def test_protocol_requests_that_do_not_fit_are_refused(numbers, change):
    with pytest.raises(Refusal) as error:
        read_infer(numbers, json.dumps(change).encode(), None)
    assert error.value.status in (400, 413, 422)


def reader_of(table: pa.Table) -> Reader:
    """A reader for the columns of a table, without a guard."""
    guard = SimpleNamespace(reads_images=False, n_features_in_=table.num_columns, schema_=Schema.infer(table))
    return Reader(guard, 50)  # pyright: ignore[reportArgumentType]


def test_flags_are_read_with_spaces_and_words_for_missing():
    reader = reader_of(pa.table({"a": [1.5, 2.0], "flag": [True, None]}))
    body = b"a,flag\n1,true\n2, true\n3,NA\n4,\n5, False\n"
    rows = {"rows": [{"a": 1, "flag": flag} for flag in ("true", " true", "NA", None, " False")]}
    for inputs in (reader.csv(body), reader.records(rows["rows"])):
        found, problems = reader.schema.encode(inputs.data)
        np.testing.assert_array_equal(found[:, 1], [1, 1, np.nan, np.nan, 0])
        assert problems == []


def dictionary(texts: pa.Array) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), texts)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_texts_of_every_arrow_type_are_read(kind):
    reader = reader_of(pa.table({"n": [1.5, 2.0], "c": ["u", "v"]}))
    plain = pa.table({"n": pa.array(["1.5", "2", None], kind), "c": pa.array(["u", "v", None], kind)})
    coded = pa.table({"n": dictionary(pa.array(["1.5", "2"], kind)), "c": dictionary(pa.array(["u", "v"], kind))})
    for table in (plain, coded):
        found = reader.schema.encode(reader.arrow(arrow(table)).data, warn=False)[0]
        np.testing.assert_array_equal(found, [[1.5, 0], [2, 1], [np.nan, np.nan]])
        for long in ("x" * 5000, "é" * 3000):
            cells = pa.array(["u", long], kind)
            column = dictionary(cells) if table is coded else pa.concat_arrays([cells, pa.array([None], kind)])
            with pytest.raises(Refusal, match="a text may have 1000 characters"):
                reader.arrow(arrow(table.set_column(1, "c", column)))


def test_bytes_that_are_not_text_are_refused(reader):
    table = rows_like_training(2).set_column(3, "country", pa.array([b"NO", b"\xff"]))
    with pytest.raises(Refusal, match="column 'country' cannot be read") as error:
        read_score(reader, "application/vnd.apache.arrow.stream", arrow(table))
    assert error.value.status == 422


def test_bytes_and_lists_as_views_are_refused():
    reader = reader_of(pa.table({"c": ["u", "v"]}))
    for cells in (pa.array([b"u"], pa.binary_view()), pa.array([["u"]], pa.list_view(pa.string()))):
        with pytest.raises(Refusal, match="which no cell of a table has"):
            reader.arrow(arrow(pa.table({"c": cells})))


def test_what_is_wrong_with_a_picture(images):
    with pytest.raises(Refusal, match=r"image 0 is not a PNG or JPEG file: .* the picture$"):
        images.pictures([b"no picture"])
    sink, frames = io.BytesIO(), [Image.new("L", (8, 8), shade) for shade in (1, 2)]
    frames[0].save(sink, "PNG", save_all=True, append_images=frames[1:])
    with pytest.raises(Refusal, match="image 0 has 2 frames"):
        images.pictures([sink.getvalue()])


@pytest.mark.parametrize("encoded", [False, True])
def test_decimals_of_arrow_are_the_numbers_that_the_guard_reads(numbers, encoded):
    from decimal import Decimal

    cells = [Decimal(k) / 100 for k in range(1, 300)]
    column = pa.array(cells, pa.decimal128(10, 2))
    column = column.dictionary_encode() if encoded else column
    table = pa.table(dict.fromkeys(numbers.names, column))
    found = read_score(numbers, "application/vnd.apache.arrow.stream", arrow(table))[0]
    assert np.array_equal(found.data[:, 0], [float(str(cell)) for cell in cells])
