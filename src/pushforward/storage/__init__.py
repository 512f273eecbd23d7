"""One-file save and load: safetensors and JSON, atomic to write, safe to read."""

from pushforward.storage.file import FORMAT, KINDS, read, write
from pushforward.storage.modules import load, pack, save, unpack

__all__ = ["FORMAT", "KINDS", "load", "pack", "read", "save", "unpack", "write"]
