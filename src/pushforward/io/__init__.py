"""Files: readers and writers of tables and images, and model files, which are safe to read. Every write is atomic."""

from pushforward.io.atomic import atomic_write
from pushforward.io.file_format import FORMAT, KINDS, file_digest, read, write
from pushforward.io.images import holds_images, read_images, stream_images
from pushforward.io.model_file import load, pack, save, unpack
from pushforward.io.signature import new_key, sign, verify
from pushforward.io.table_parts import PartedTable, TablePart
from pushforward.io.table_writer import TableWriter
from pushforward.io.tables import read_table, stream_table

__all__ = [
    "FORMAT",
    "KINDS",
    "PartedTable",
    "TablePart",
    "TableWriter",
    "atomic_write",
    "file_digest",
    "holds_images",
    "load",
    "new_key",
    "pack",
    "read",
    "read_images",
    "read_table",
    "save",
    "sign",
    "stream_images",
    "stream_table",
    "unpack",
    "verify",
    "write",
]
