"""Detached signatures of files, so that a program can refuse a file that a given key did not sign.

The signature of NAME is the file NAME.sig: the 64 bytes of Ed25519 (RFC 8032) over the bytes of NAME, without a header. Keys
are PEM files (PKCS#8 and SubjectPublicKeyInfo). OpenSSL reads and writes the same files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pushforward.errors import ConfigError, SignatureError, StorageError
from pushforward.io.atomic import atomic_write, reason
from pushforward.io.files import expanded

__all__ = ["check_signature", "new_key", "sign", "signature_path", "verify"]

AnyPath = str | os.PathLike[str]

_LARGEST_KEY = 1 << 16


def new_key(path: AnyPath, *, force: bool = False) -> Path:
    """Write a new private key to ``path``, which only its owner may read, and its public key to ``path`` with ".pub" added.

    Args:
        path: the file of the private key.
        force: whether to replace a key that is there.

    Returns:
        The file of the public key, to give to those who verify.

    Raises:
        StorageError: if there is a file, or none can be written.
        ConfigError: without the package `cryptography`.

    Example:
        >>> import pathlib, tempfile
        >>> from pushforward.io import new_key
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> new_key(folder / "release.pem").name
        'release.pem.pub'
    """
    serialization, ed25519 = _cryptography()
    private, public = expanded(path), _with_ending(path, ".pub")
    for file in (private, public):
        if file.exists() and not force:
            raise StorageError(f"{file} exists, and a key that is lost cannot be made again: choose another name.")
    key = ed25519.Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        private.unlink(missing_ok=True)
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise StorageError(f"cannot write {private}: {reason(error)}.") from error
    with atomic_write(public) as file:
        file.write(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    return public


def sign(path: AnyPath, private_key: AnyPath, *, password: str | bytes | None = None) -> Path:
    """Sign a file. The signature is written beside it, and a signature that was there is replaced.

    Args:
        path: the file, such as that of a guard.
        private_key: PEM file of an Ed25519 private key, of :func:`new_key` or ``openssl genpkey -algorithm ed25519``.
        password: of the key, if it is encrypted.

    Returns:
        The file of the signature, ``path`` with ".sig" added.

    Raises:
        StorageError: if a file cannot be read or written.
        ConfigError: for a key of another kind, or without the package `cryptography`.

    Example:
        >>> import pathlib, tempfile
        >>> import pushforward as pf
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "file").write_bytes(b"content")
        >>> public_key = pf.io.new_key(folder / "key")
        >>> signature = pf.io.sign(folder / "file", folder / "key")
        >>> pf.io.verify(folder / "file", public_key)
        >>> _ = (folder / "file").write_bytes(b"Content")
        >>> pf.io.verify(folder / "file", public_key)
        Traceback (most recent call last):
        pushforward.errors.SignatureError: ...
    """
    serialization, ed25519 = _cryptography()
    secret = password.encode() if isinstance(password, str) else password
    try:
        key = serialization.load_pem_private_key(_content(private_key, _LARGEST_KEY), secret)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{private_key} is not a private key that can be read: {str(error)[:200]}") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError(f"{private_key} is not an Ed25519 key: make one with pushforward keygen.")
    signature = key.sign(_content(path))
    target = signature_path(path)
    with atomic_write(target) as file:
        file.write(signature)
    return target


def verify(path: AnyPath, public_key: AnyPath) -> None:
    """Check that a file is as it was when the owner of a key signed it.

    Another program can change the file after this. ``Guard.load(path, public_key=...)`` verifies the bytes that it uses.

    Args:
        path: the file; its signature is ``path`` with ".sig" added.
        public_key: PEM file of an Ed25519 public key.

    Raises:
        SignatureError: if there is no signature, or it is not one of these bytes by this key.
        StorageError: if a file cannot be read.
        ConfigError: for a key of another kind, or without the package `cryptography`.

    Example:
        >>> import pathlib, tempfile, torch, pushforward as pf
        >>> path = pathlib.Path(tempfile.mkdtemp(), "model.safetensors")
        >>> model = pf.models.NICE(features=2)
        >>> pf.save(model, path)
        >>> from pushforward.io import new_key, sign, verify
        >>> key = path.parent / "release.pem"
        >>> public = new_key(key)
        >>> _ = sign(path, key)
        >>> verify(path, public)  # raises SignatureError if the file was changed
    """
    check_signature(_content(path), path, public_key)


def check_signature(data: bytes, path: AnyPath, public_key: AnyPath) -> None:
    """:func:`verify` for bytes that were read from ``path``."""
    serialization, ed25519 = _cryptography()
    from cryptography.exceptions import InvalidSignature

    try:
        key = serialization.load_pem_public_key(_content(public_key, _LARGEST_KEY))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{public_key} is not a public key that can be read: {str(error)[:200]}") from None
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise ConfigError(f"{public_key} is not an Ed25519 public key.")
    file = signature_path(path)
    if not file.exists():
        raise SignatureError(f"{path} is not signed: there is no {file.name} beside it.")
    try:
        key.verify(_content(file, _LARGEST_KEY), data)
    except InvalidSignature:
        raise SignatureError(
            f"{path} was changed after it was signed, or it was signed with another key than that of {public_key}."
        ) from None


def signature_path(path: AnyPath) -> Path:
    """The file of the signature of a file."""
    return _with_ending(path, ".sig")


def _with_ending(path: AnyPath, ending: str) -> Path:
    path = expanded(path)
    return path.with_name(path.name + ending)


def _content(path: AnyPath, limit: int | None = None) -> bytes:
    try:
        with expanded(path).open("rb") as file:
            return file.read() if limit is None else file.read(limit)
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(f"cannot read {path}: {reason(error)}.") from error


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise ConfigError('signatures need the package cryptography: pip install "pushforward[sign]".') from None
    return serialization, ed25519
