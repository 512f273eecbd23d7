"""Whether the buffers of an Arrow message are compressed, read from the message's metadata alone.

The metadata is a flatbuffer ``Message`` whose header is a ``RecordBatch`` or a ``DictionaryBatch`` with one inside
(Arrow columnar format, "Encapsulated message format"). pyarrow decompresses without a limit on memory, and of metadata older
than version 5 also by a note among the message's own metadata, which was the form before Arrow 1.0.
"""

from __future__ import annotations

import struct
from typing import Any

__all__ = ["is_compressed"]

_VERSION, _HEADER_TYPE, _HEADER, _NOTES = 0, 1, 2, 4  # fields of Message
_V5 = 4  # value of the version
_DICTIONARY_DATA = 1  # field of DictionaryBatch
_COMPRESSION = 3  # field of RecordBatch
_DICTIONARY, _RECORDS = 2, 3  # values of the header's type


def is_compressed(message: Any) -> bool:
    """Whether a ``pyarrow.ipc.Message`` states a compression, or has metadata that cannot be read."""
    data = message.metadata.to_pybytes()
    try:
        root = _u32(data, 0)
        kind_at, header_at = _field(data, root, _HEADER_TYPE), _field(data, root, _HEADER)
        kind = data[kind_at] if kind_at else 0
        if kind not in (_DICTIONARY, _RECORDS) or not header_at:
            return False
        version_at = _field(data, root, _VERSION)
        version = struct.unpack_from("<h", data, version_at)[0] if version_at else 0
        if version < _V5 and _field(data, root, _NOTES):
            return True
        table = header_at + _u32(data, header_at)
        if kind == _DICTIONARY:
            inner = _field(data, table, _DICTIONARY_DATA)
            if not inner:
                return False
            table = inner + _u32(data, inner)
        return bool(_field(data, table, _COMPRESSION))
    except (struct.error, IndexError):
        return True


def _u32(data: bytes, at: int) -> int:
    return struct.unpack_from("<I", data, at)[0]


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer table is, 0 if it is absent."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0:
        raise IndexError("a table outside the buffer")
    size = struct.unpack_from("<H", data, vtable)[0]
    at = 4 + 2 * number
    offset = struct.unpack_from("<H", data, vtable + at)[0] if at < size else 0
    return table + offset if offset else 0
