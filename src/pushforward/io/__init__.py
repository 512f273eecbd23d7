"""One-file save and load: safetensors and JSON, atomic to write, safe to read."""

from pushforward.io.container import FORMAT, KINDS, read, write
from pushforward.io.model_file import load, pack, save, unpack

__all__ = ["FORMAT", "KINDS", "load", "pack", "read", "save", "unpack", "write"]
