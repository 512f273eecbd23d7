"""What a client sends, as rows that a guard reads: JSON, CSV, Arrow, NumPy, and images. Nothing that is sent is trusted."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from csv import Error as CsvError
from csv import reader as csv_lines
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pushforward.data import Schema, as_images
from pushforward.data.arrow import compute, is_text, without_views
from pushforward.data.cells import number_cells
from pushforward.data.images import picture_error, pixels_of, without_colors
from pushforward.data.schema import similar_hint, similar_name
from pushforward.data.text import MISSING_WORDS, parse_numbers
from pushforward.errors import InputError, SchemaError
from pushforward.estimators import Guard
from pushforward.estimators.guard_inputs import channels_of, with_its_channels
from pushforward.service.refusal import Refusal

__all__ = ["Inputs", "Reader"]

_LONGEST_CELL = 1000
_LONGEST_COMPARED, _MOST_COMPARED = 100, 300
"""Characters of a name, and names, among which the one that was meant is looked for."""
_NUMBERS = ("numeric", "integer")


@dataclass(frozen=True)
class Inputs:
    """Rows of one kind.

    Attributes:
        kind: "matrix": float64 ``(rows, columns)`` in the order of the schema; "table": a pyarrow table with the columns of
            the schema, numbers as float64 and all else as text; "images": integers ``(rows, c, h, w)``.
        data: the rows.
    """

    kind: Literal["matrix", "table", "images"]
    data: Any

    def __len__(self) -> int:
        return len(self.data)

    def part(self, start: int, stop: int) -> Inputs:
        """Some of the rows."""
        data = self.data.slice(start, stop - start) if self.kind == "table" else self.data[start:stop]
        return Inputs(self.kind, data)

    def like(self, other: Inputs) -> bool:
        """Whether the rows of both can be joined."""
        if self.kind != "images":
            return self.kind == other.kind
        return (
            other.kind == "images"
            and self.data.shape[1:] == other.data.shape[1:]
            and self.data.dtype == other.data.dtype
        )

    @staticmethod
    def join(parts: Sequence[Inputs]) -> Inputs:
        """The rows of several in one."""
        if len(parts) == 1:
            return parts[0]
        data = [part.data for part in parts]
        if parts[0].kind == "table":
            import pyarrow as pa

            return Inputs("table", pa.concat_tables(data))
        return Inputs(parts[0].kind, np.concatenate(data))


class Reader:
    """Reads what clients send for one guard. Each method raises a `Refusal` (400 or 422) for content that does not fit.

    Args:
        guard: that the rows are for.
        max_rows: largest number of rows.
    """

    def __init__(self, guard: Guard, max_rows: int) -> None:
        self.guard, self.max_rows, self.images, self.size = guard, max_rows, guard.reads_images, guard.n_features_in_
        self.schema: Schema | None = None if self.images else guard.schema_
        columns = () if self.schema is None else self.schema.columns
        self.names: tuple[str, ...] = tuple(column.name for column in columns)
        self.numeric = [column.kind in _NUMBERS and not column.time for column in columns]
        self.all_numeric = all(self.numeric)
        self.needs_check = any(
            column.time or column.kind == "boolean" for column in columns
        )  # text of these cells can be wrong, which only the schema knows

    # -- rows ---------------------------------------------------------------------------------------------------------

    def records(self, rows: Sequence[Any]) -> Inputs:
        """Objects with one value for each column (others are ignored), or lists of values in the order of the columns."""
        self._check_count(len(rows))
        self._refuse_images()
        if all(type(row) is list for row in rows):
            for k, row in enumerate(rows):
                if len(row) != len(self.names):
                    raise Refusal(422, f"row {k} has {len(row)} values and the model has {len(self.names)} columns.")
            return self._columns(list(zip(*rows, strict=True)))
        for k, row in enumerate(rows):
            if type(row) is not dict:
                raise Refusal(422, f"row {k} is not an object such as {{column: value}}.")
        try:
            return self._columns([[row[name] for row in rows] for name in self.names])
        except KeyError:
            for k, row in enumerate(rows):
                self._check_names(row, f"row {k}")
            raise

    def columns(self, columns: Mapping[str, Any]) -> Inputs:
        """A mapping of names to lists of cells."""
        self._refuse_images()
        self._check_names(columns, "the table")
        cells = [columns[name] for name in self.names]
        for name, values in zip(self.names, cells, strict=True):
            if not isinstance(values, (list, np.ndarray)):
                raise Refusal(422, f"column {name!r:.80} is not a list.")
        lengths = {len(values) for values in cells}
        if len(lengths) > 1:
            raise Refusal(422, "the columns have different numbers of rows.")
        self._check_count(lengths.pop())
        return self._columns(cells)

    def split(self, names: Sequence[Any], rows: Sequence[Any]) -> Inputs:
        """Names of the columns, and rows as lists in that order."""
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise Refusal(422, "the names of the columns must be different texts.")
        self._check_count(len(rows))
        for k, row in enumerate(rows):
            if type(row) is not list or len(row) != len(names):
                raise Refusal(422, f"row {k} does not have one value for each of the {len(names)} columns.")
        return self.columns({name: list(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)})

    def csv(self, body: bytes) -> Inputs:
        """CSV with a line of names."""
        import pyarrow as pa
        from pyarrow import csv

        self._refuse_images()
        self._check_csv_names(_csv_names(body))
        read = csv.ReadOptions(use_threads=False, block_size=max(1 << 20, len(body) + 1))
        parse = csv.ParseOptions(newlines_in_values=True)

        def table(numbers: pa.DataType) -> pa.Table:
            types = {n: numbers if number else pa.string() for n, number in zip(self.names, self.numeric, strict=True)}
            convert = csv.ConvertOptions(
                column_types=types, include_columns=list(self.names), null_values=list(MISSING_WORDS)
            )
            return csv.read_csv(pa.BufferReader(body), read_options=read, parse_options=parse, convert_options=convert)

        try:
            try:
                found = table(pa.float64())
            except pa.ArrowInvalid:
                found = table(pa.string())  # a cell that is no number is named below
        except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError, UnicodeDecodeError) as error:
            if _is_utf8(body):
                raise Refusal(422, f"the body is not CSV with the columns of the model: {_first_line(error)}") from None
            raise Refusal(422, "the body is not CSV in UTF-8: write it in this encoding.") from None
        return self._arrow_table(found)

    def arrow(self, body: bytes) -> Inputs:
        """An Arrow IPC stream. Compressed buffers are refused, because a small body could then need any memory."""
        import pyarrow as pa

        from pushforward.service.arrow_check import is_compressed

        self._refuse_images()
        try:
            batches, rows = [], 0
            for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(body)):
                if is_compressed(message):
                    raise Refusal(415, "the Arrow stream is compressed: write it without compression.")
            stream = pa.ipc.open_stream(pa.BufferReader(body))
            for batch in stream:
                rows += batch.num_rows
                self._check_count(rows, least=0)
                batch.validate(full=True)
                batches.append(batch)
            table = pa.Table.from_batches(batches, stream.schema)
            table.column_names  # noqa: B018  names that are not UTF-8 raise here
        except (pa.ArrowException, ValueError, OSError, KeyError, UnicodeDecodeError) as error:
            raise Refusal(400, f"the body is not an Arrow stream: {_first_line(error)}") from None
        return self._arrow_table(table)

    def array(self, body: bytes) -> Inputs:
        """An array in NumPy's format NPY: rows and columns, or images."""
        try:
            source = io.BytesIO(body)
            version = np.lib.format.read_magic(source)
            reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, fortran, kind = reader(source)
            rest = body[source.tell() :]
            if kind.kind not in "fiub" or math.prod(shape) * kind.itemsize != len(rest):
                raise ValueError("the header does not fit the content, or it is not an array of numbers")
            array = np.frombuffer(bytearray(rest), kind).reshape(shape, order="F" if fortran else "C")
        except Exception as error:  # numpy parses the header as Python, which fails with errors of many types
            raise Refusal(400, f"the body is not an NPY array: {_first_line(error)}") from None
        return self.numbers(array)

    def numbers(self, array: np.ndarray) -> Inputs:
        """An array of numbers: rows and columns, or images."""
        if self.images:
            return self._image_stack(array)
        if array.ndim == 1 and len(self.names) == 1:
            array = array[:, None]
        if array.ndim != 2 or array.shape[1] != len(self.names):
            raise Refusal(
                422,
                f"the array has the shape {list(array.shape)[:6]} and the model reads rows of {len(self.names)} columns.",
            )
        self._check_count(len(array))
        return self._columns(list(array.T))

    # -- images -------------------------------------------------------------------------------------------------------

    def pictures(self, encoded: Iterable[bytes]) -> Inputs:
        """PNG or JPEG files of the size that the guard was fitted on."""
        from PIL import Image

        self._require_images()
        arrays = []
        for k, content in enumerate(encoded):
            try:
                with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
                    # The size is read before anything is decoded, so that a small file cannot become a huge picture.
                    if picture.width * picture.height > self.size:
                        raise Refusal(
                            422,
                            f"image {k} is {picture.width} x {picture.height}, larger than the images of the model.",
                        )
                    pixels = pixels_of(picture, f"image {k}")
                    arrays.append(without_colors(pixels, f"image {k}") if channels_of(self.guard) == 1 else pixels)
            except Refusal:
                raise
            except InputError as error:
                raise Refusal(422, str(error)) from None
            except Exception as error:  # decoders raise errors of any type for damaged bytes
                raise Refusal(422, f"image {k} is not a PNG or JPEG file: {picture_error(error)[:200]}") from None
        self._check_count(len(arrays))
        if len({array.shape[:2] for array in arrays}) > 1:
            raise Refusal(422, "the images have different sizes: send images of one size.")
        arrays = [array if array.ndim == 3 else array[..., None] for array in arrays]
        channels = max(array.shape[2] for array in arrays)  # a gray one among colored ones has three equal channels
        return self._image_stack(np.stack([np.broadcast_to(array, (*array.shape[:2], channels)) for array in arrays]))

    def image_list(self, images: Sequence[Any]) -> Inputs:
        """Images in JSON: base64 of PNG or JPEG files, or nested lists of integers."""
        self._require_images()
        self._check_count(len(images))
        if all(isinstance(image, str) for image in images):
            try:
                return self.pictures([base64.b64decode(image, validate=True) for image in images])
            except (binascii.Error, ValueError):
                raise Refusal(422, "an image is not base64.") from None
        try:
            return self._image_stack(np.asarray(images, dtype=np.float64))
        except (ValueError, TypeError, OverflowError):
            raise Refusal(422, "the images are neither base64 texts nor nested lists of numbers of one size.") from None

    def _image_stack(self, array: np.ndarray) -> Inputs:
        self._check_count(len(array) if array.ndim else 0)
        try:
            stack = with_its_channels(self.guard, as_images(array), array).numpy()
        except InputError as error:
            raise Refusal(422, str(error)) from None
        if math.prod(stack.shape[1:]) != self.size:
            raise Refusal(
                422, f"an image has {math.prod(stack.shape[1:])} values and the images of the model have {self.size}."
            )
        return Inputs("images", stack)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _columns(self, cells: Sequence[Any]) -> Inputs:
        """Rows from the cells of each column, in the order of the schema."""
        numbers = {
            i: _numbers(self.names[i], values)
            for i, values in enumerate(cells)
            if self.numeric[i]
        }  # fmt: skip
        if self.all_numeric:
            return Inputs("matrix", np.stack(list(numbers.values()), axis=1))
        import pyarrow as pa

        arrays = [
            pa.array(numbers[i]) if i in numbers else pa.array(_texts(self.names[i], values), pa.string())
            for i, values in enumerate(cells)
        ]
        return self._checked(pa.table(arrays, names=list(self.names)))

    def _arrow_table(self, table: Any) -> Inputs:
        import pyarrow as pa

        self._check_count(table.num_rows)
        self._check_names(dict.fromkeys(table.column_names), "the table")
        self._check_twice(table.column_names)
        arrays = []
        for name, number in zip(self.names, self.numeric, strict=True):
            column = table.column(name)
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            if pa.types.is_nested(kind) or pa.types.is_run_end_encoded(column.type) or pa.types.is_binary_view(kind):
                raise Refusal(422, f"column {name!r:.80} has the type {str(kind)[:60]}, which no cell of a table has.")
            try:
                if is_text(kind):
                    for chunk in column.chunks:
                        _check_texts(name, chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk)
                    column = without_views(column)
                if pa.types.is_duration(kind):  # as text it would be a number of its own unit
                    column = pa.array(number_cells(name, column, "duration").values)
                elif number and pa.types.is_decimal(kind):
                    # Through text, as `number_cells` does, since pyarrow does not round decimals to the nearest number.
                    column = compute().cast(compute().cast(column, kind), pa.string())
                elif number and is_text(kind):
                    column = pa.array(_numbers(name, column.to_pylist()))
                # A safe cast of bytes to text refuses those that are not UTF-8; one of numbers would refuse to round.
                arrays.append(compute().cast(column, pa.float64() if number else pa.string(), safe=not number))
            except (pa.ArrowException, ValueError) as error:
                raise Refusal(422, f"column {name!r:.80} cannot be read: {_first_line(error)}") from None
        joined = pa.table(arrays, names=list(self.names))
        if self.all_numeric:
            columns = [column.to_numpy(zero_copy_only=False) for column in joined.combine_chunks().columns]
            return Inputs("matrix", np.stack([np.asarray(column, np.float64) for column in columns], axis=1))
        return self._checked(joined)

    def _checked(self, table: Any) -> Inputs:
        """A table whose flags and times the schema can read."""
        if self.needs_check and self.schema is not None:
            try:
                self.schema.encode(table, warn=False)
            except (SchemaError, InputError) as error:
                raise Refusal(422, str(error)) from None
        return Inputs("table", table)

    def _check_names(self, present: Mapping[str, Any], what: str) -> None:
        absent = [name for name in self.names if name not in present]
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            # Only names that a column may have: the search takes long for long ones.
            short = [str(name) for name in list(present)[:_MOST_COMPARED] if len(str(name)) <= _LONGEST_COMPARED]
            similar = similar_name(absent[0][:_LONGEST_COMPARED], short)
            hint = "" if similar is None or similar in self.names else similar_hint(similar, absent[:1])
            raise Refusal(422, f"{what} lacks the column {absent[0]!r:.80}{more}, which the model has{hint}.")

    def _check_csv_names(self, names: Sequence[str]) -> None:
        """Refuse a first line that lacks a column, and say so where another character separates its names."""
        self._check_twice(names)
        if len(names) == 1 and len(self.names) > 1:
            for mark, word in ((";", "';'"), ("\t", "tabs"), ("|", "'|'")):
                if mark in names[0]:
                    raise Refusal(
                        422, f"the names in the first line are separated by {word}: separate the cells by commas."
                    )
        if names:  # pyarrow describes the others
            self._check_names(dict.fromkeys(names), "the table")

    @staticmethod
    def _check_twice(names: Sequence[str]) -> None:
        if len(set(names)) < len(names):
            raise Refusal(422, "two columns have the same name: rename one.")

    def _check_count(self, rows: int, least: int = 1) -> None:
        if rows < least:
            raise Refusal(422, "there are no rows.")
        if rows > self.max_rows:
            raise Refusal(413, f"a request may have {self.max_rows} rows: send the rows in several requests.")

    def _refuse_images(self) -> None:
        if self.images:
            raise Refusal(422, "this model reads images: send PNG, JPEG, NPY, or JSON with the key images.")

    def _require_images(self) -> None:
        if not self.images:
            raise Refusal(422, "this model reads rows of a table and no images.")


def _numbers(name: str, values: Any) -> np.ndarray:
    """Cells of a number column as float64; None and NaN are missing."""
    try:
        if isinstance(values, np.ndarray):
            return values.astype(np.float64)
        numbers: list[Any] = [math.nan if value is None else value for value in values]
        texts = [k for k, value in enumerate(numbers) if isinstance(value, (str, bytes))]
        if texts:  # Python's own reading of a text as a number has other rules than that of a table
            for k, value in zip(texts, _read_texts([numbers[k] for k in texts]), strict=True):
                numbers[k] = value
        found = np.array(numbers, np.float64)
        if found.ndim != 1:
            raise TypeError
        return found
    except (ValueError, TypeError, OverflowError):
        for k, value in enumerate(values):
            try:
                [value] = _read_texts([value]) if isinstance(value, (str, bytes)) else [value]
                math.isnan(float(math.nan if value is None else value))
            except (ValueError, TypeError, OverflowError):
                raise Refusal(422, f"column {name!r:.80}, row {k}: {value!r:.60} is not a number.") from None
        raise Refusal(422, f"column {name!r:.80} has a cell that is not a number.") from None


def _read_texts(texts: Sequence[str | bytes]) -> list[float]:
    """Numbers that are written as text, as a table reads them; ValueError for another text."""
    import pyarrow as pa

    plain = [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in texts]
    numbers, wrong = parse_numbers(pa.array(plain, pa.large_string()))
    if wrong.any():
        raise ValueError
    return numbers.tolist()


def _csv_names(body: bytes) -> list[str]:
    """The first line of CSV; empty for one that only pyarrow's error can describe."""
    lines = io.TextIOWrapper(io.BytesIO(body), "utf-8-sig", newline="")
    try:
        return next((line for line in csv_lines(lines) if line), [])
    except (ValueError, CsvError):
        return []


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    return True


def _texts(name: str, values: Any) -> list[str | None]:
    """Cells of any other column as text; None and NaN are missing."""
    found: list[str | None] = []
    for k, value in enumerate(values.tolist() if isinstance(values, np.ndarray) else values):
        if type(value) is str:
            if len(value) > _LONGEST_CELL:
                raise Refusal(422, f"column {name!r:.80}, row {k}: a text may have {_LONGEST_CELL} characters.")
            found.append(value)
        elif value is None or value != value:
            found.append(None)
        elif isinstance(value, bool):
            found.append("true" if value else "false")
        elif isinstance(value, (int, float)):
            found.append(str(value))
        elif isinstance(value, bytes):
            found.append(value.decode("utf-8", "replace")[:_LONGEST_CELL])
        else:
            raise Refusal(422, f"column {name!r:.80}, row {k}: a cell must be a text, a number, true, false or null.")
    return found


def _check_texts(name: str, texts: Any) -> None:
    import pyarrow as pa

    if pa.types.is_string_view(texts.type):
        # Views can share bytes, so that few bytes are many long texts: a length is the first quarter of a view of 16 bytes.
        views = np.frombuffer(texts.buffers()[1] or b"", np.int32)[::4]
        lengths = pa.array(views[texts.offset : texts.offset + len(texts)])
    else:
        lengths = compute().binary_length(texts)
    longest = compute().max(lengths).as_py() if len(texts) else 0
    if longest and longest > 4 * _LONGEST_CELL:
        raise Refusal(422, f"column {name!r:.80}: a text may have {_LONGEST_CELL} characters.")


def _first_line(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:200]
