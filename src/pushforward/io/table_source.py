"""Which files make up one table: a file, a folder with partitions, the files at a URI, or a pipe."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pushforward.data.schema import present_columns
from pushforward.data.tables import as_table
from pushforward.errors import ConfigError, InputError, SchemaError, SchemaWarning, StorageError, warn_caller
from pushforward.io.atomic import reason
from pushforward.io.files import (
    FORMATS,
    TEXT_FORMATS,
    compression_of,
    existing_path,
    file_format,
    files_below,
    plain_errors,
)
from pushforward.io.input_file import InputFile, TextFormat, filesystem_of, magic_compression
from pushforward.io.pipe import Pipe, is_pipe, open_pipe, spooled

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TableSource"]

_ONE_FILE = ("npy", "npz")
"""Formats of which a table is one file, and never a folder of files."""


@dataclass(frozen=True)
class TableSource:
    """The files of one table, found without reading more than their first bytes.

    Attributes:
        name: the file, folder or pipe in the words of the user.
        format: the format of all files, a value of :data:`~pushforward.io.files.FORMATS`.
        files: the files in the order of their paths, each with the columns that its folders ``key=value`` add, as scalars of pyarrow.
        columns: names of the columns to read; None for all.
        folder: the folder of the files in its file system; None for a single file.
        pipe: the stream of text that is read instead of files.
        owner: what deletes a temporary file when nothing refers to it any more.
    """

    name: str
    format: str
    files: Sequence[tuple[InputFile, Mapping[str, Any]]]
    columns: list[str] | None
    folder: str | None = None
    pipe: Pipe | None = None
    owner: Any = None

    @classmethod
    def at(
        cls, path: Any, columns: Sequence[str] | None, format: str | None, text: TextFormat, filesystem: Any
    ) -> TableSource:
        """What is at a path.

        Raises:
            ConfigError: for columns that are not a list of different names, or an unknown format.
            InputError: for an object that is not a path.
            StorageError: if nothing is there, or it is not a table.
        """
        if columns is not None and (isinstance(columns, str) or not columns or len(set(columns)) < len(columns)):
            raise ConfigError(f"columns must be a list of different names, at least one; got {columns!r}.")
        chosen = None if columns is None else list(columns)
        if format is not None:
            file_format("", format)
        if filesystem is None and is_pipe(path):
            pipe = open_pipe(path, format, text)
            source = cls(pipe.name, pipe.format, [], chosen, pipe=pipe)
            return source if pipe.format in TEXT_FORMATS else source.spooled()
        located = (filesystem, os.fspath(path)) if filesystem is not None else filesystem_of(path)
        if located is not None and located[0] is not None:
            return _remote(str(path), located[1], located[0], format, text, chosen)
        where = existing_path(path if located is None else located[1])
        if not where.is_dir():
            found = file_format(where, format)
            compression = _compression(str(where), found, format)
            return cls(
                str(path), found, [(InputFile(str(path), str(where), None, found, compression, text), {})], chosen
            )
        files = sorted(file for file in files_below(where) if _is_table(file.relative_to(where).parts, format))
        return _folder(str(path), str(where), None, [str(file) for file in files], format, text, chosen)

    @property
    def inputs(self) -> list[InputFile]:
        """The files alone."""
        return [file for file, _ in self.files]

    @property
    def keys(self) -> set[str]:
        """The columns that folders add."""
        return {name for _, keys in self.files for name in keys}

    def spooled(self) -> TableSource:
        """The same table, with the content of a pipe in a temporary file."""
        if self.pipe is None:
            return self
        pipe = self.pipe
        file, owner = spooled(pipe.content, self.name, self.format, pipe.text)
        return dataclasses.replace(self, files=[(file, {})], pipe=None, owner=owner)

    def dataset(self) -> Any:
        """The Parquet files as a ``pyarrow.dataset``."""
        import pyarrow as pa
        from pyarrow import dataset

        # A buffered stream, because pyarrow otherwise keeps a whole row group of each column.
        scan = dataset.ParquetFragmentScanOptions(use_buffered_stream=True, buffer_size=1 << 20, pre_buffer=False)
        options: dict[str, Any] = {"format": dataset.ParquetFileFormat(default_fragment_scan_options=scan)}
        if self.folder is not None:
            options |= {"partitioning": "hive", "partition_base_dir": self.folder}
        try:
            found = dataset.dataset(
                [file.path for file in self.inputs], filesystem=self.inputs[0].filesystem, **options
            )
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            if "duplicate field names" in str(error):
                raise InputError(
                    f"{self.name} has more than one column of the same name: rename or drop one."
                ) from None
            if "Unable to merge" in str(error):
                raise InputError(
                    f"a column of {self.name} has one type in its files and another by the names of its folders: {error}: drop it from the files, "
                    "or rename the folders."
                ) from None
            raise
        self.checked(found.schema.empty_table())
        return found

    @contextmanager
    def scanning(self, dataset: Any, fragments: Sequence[Any]) -> Iterator[None]:
        """Warn of columns of files of :meth:`dataset` that the first file lacks, which are not read, and name a column whose types do not fit.

        Args:
            dataset: as :meth:`dataset` gave it.
            fragments: those of its files that are read in the ``with`` block.
        """
        import pyarrow as pa

        if self.folder is None:
            yield
            return
        types = dict(zip(dataset.schema.names, dataset.schema.types, strict=True))
        for fragment in fragments if self.columns is None else ():
            if more := [name for name in fragment.physical_schema.names if name not in types]:
                warn_caller(
                    f"{fragment.path} has columns that the first file of {self.name} does not have, which are left out: "
                    f"{', '.join(map(repr, more[:10]))}.",
                    SchemaWarning,
                )
                break
        try:
            yield
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            for fragment in fragments:
                for field in fragment.physical_schema:
                    if types.get(field.name, field.type) != field.type:
                        raise InputError(
                            f"column {field.name!r} is {types[field.name]} in the first file of {self.name} and {field.type} in {fragment.path}, "
                            f"which cannot be converted: {error}: write both with one type."
                        ) from None
            raise

    def tables(self, read: Callable[[InputFile, list[str] | None], Iterable[pa.Table]]) -> Iterator[pa.Table]:
        """The tables that ``read(file, columns)`` gives for each file, with the columns that its folders add."""
        import pyarrow as pa

        for file, keys in self.files:
            columns = None if self.columns is None else [name for name in self.columns if name not in keys]
            for table in read(file, columns):
                for name, value in keys.items():
                    if name not in table.column_names:
                        table = table.append_column(name, pa.repeat(value, len(table)))
                yield table

    def checked(self, table: pa.Table) -> pa.Table:
        """The chosen columns of a table that can be used."""
        table = as_table(table, index=True)
        if self.columns is None:
            return table
        for name in self.columns:
            if name not in table.column_names:
                raise SchemaError(
                    f"{self.name} has no column {name!r}; it has {present_columns(name, table.column_names)}."
                )
        table = table.select(self.columns)
        # A column that the user names is one of the table, though it may be the index of a pandas frame.
        metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key != b"pandas"}
        return table.replace_schema_metadata(metadata or None)


def _remote(
    name: str, path: str, filesystem: Any, format: str | None, text: TextFormat, columns: list[str] | None
) -> TableSource:
    """What is at a path of a file system of pyarrow."""
    from pyarrow import fs

    try:
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise StorageError(f"there is no file or folder {name}.")
        if info.type == fs.FileType.Directory:
            inside = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
            base = PurePosixPath(path)
            paths = [PurePosixPath(item.path) for item in inside if item.type == fs.FileType.File]
            chosen = sorted(p for p in paths if _is_table(p.relative_to(base).parts, format))
            return _folder(name, path, filesystem, [str(p) for p in chosen], format, text, columns)
        if info.size == 0:
            raise StorageError(f"{name} is empty.")
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot read {name}: {reason(error)}.") from error
    found = file_format(path, format)
    file = InputFile(name, path, filesystem, found, compression_of(path), text)
    if found not in _ONE_FILE:
        return TableSource(name, found, [(file, {})], columns)
    with plain_errors(name), filesystem.open_input_stream(path, compression=None) as stream:
        copy, owner = spooled(stream, name, found, text)
    return TableSource(name, found, [(copy, {})], columns, owner=owner)


def _folder(
    name: str,
    path: str,
    filesystem: Any,
    files: list[str],
    format: str | None,
    text: TextFormat,
    columns: list[str] | None,
) -> TableSource:
    """The files of a folder as one table."""
    formats = {file_format(file, format) for file in files}
    if len(formats) != 1 or formats & set(_ONE_FILE):
        raise StorageError(
            f"the files in the folder {name} must be tables of one format (.csv, .tsv, .jsonl, .parquet, .arrow); it has "
            f"{', '.join(sorted(formats)) or 'no table'}."
        )
    (found,) = formats
    inputs = [InputFile(file, file, filesystem, found, compression_of(file), text) for file in files]
    return TableSource(name, found, _with_partition_keys(inputs, path, filesystem), columns, folder=path)


def _is_table(parts: Sequence[str], format: str | None) -> bool:
    """Whether a path in a folder is not hidden and its name is that of a table; every name is, if a format was chosen."""
    hidden = any(part.startswith((".", "_")) for part in parts)
    return not hidden and (format is not None or parts[-1].lower().endswith(tuple(FORMATS)))


def _with_partition_keys(
    files: Sequence[InputFile], folder: str, filesystem: Any
) -> list[tuple[InputFile, Mapping[str, Any]]]:
    import pyarrow as pa
    from pyarrow import dataset, fs

    hive = dataset.FileSystemFactoryOptions(partition_base_dir=folder, partitioning=dataset.HivePartitioning.discover())
    # No file is opened here, so the format is not used.
    factory = dataset.FileSystemDatasetFactory(
        filesystem or fs.LocalFileSystem(), [file.path for file in files], dataset.ParquetFileFormat(), hive
    )
    schema = factory.inspect(fragments=0)  # one type for all values of a key, also where a folder has none
    keys = {
        part.path: {
            name: pa.scalar(value, schema.field(name).type)
            for name, value in dataset.get_partition_keys(part.partition_expression).items()
        }
        for part in factory.finish(schema).get_fragments()
    }
    return [(file, keys[file.path]) for file in files]


def _compression(path: str, found: str, format: str | None) -> str | None:
    """The compression of a file of text: what its name states or, where the format was chosen, what its first bytes show."""
    stated = compression_of(path)
    if found not in TEXT_FORMATS or stated or format is None:
        return stated
    try:
        with Path(path).open("rb") as file:
            return magic_compression(file.read(4))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {reason(error)}.") from error
