"""The commands of signatures: keygen, sign, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pushforward.cli.commands import app

__all__ = ["keygen", "sign", "verify"]

File = Annotated[Path, typer.Argument(help="Any file, such as that of a guard.")]


@app.command(epilog="Example: `pushforward keygen release.pem`")
def keygen(
    key: Annotated[
        Path, typer.Argument(help="File of the new private key; the public key is written beside it, with .pub added.")
    ],
) -> None:
    """Make a pair of keys to sign files with (Ed25519)."""
    from pushforward.io import new_key

    print(f"private key {key}: keep it secret. Public key {new_key(key)}: give it to those who verify.")


@app.command(epilog="Example: `pushforward sign guard.safetensors --key release.pem`")
def sign(
    file: File,
    key: Annotated[Path, typer.Option(help="File of the private key, PEM.")],
    password_file: Annotated[Path | None, typer.Option(help="File with the password of an encrypted key.")] = None,
) -> None:
    """Write the signature of a file beside it, with .sig added to its name."""
    from pushforward.errors import StorageError
    from pushforward.io import sign as sign_file
    from pushforward.io.atomic import reason

    try:
        password = None if password_file is None else password_file.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise StorageError(f"cannot read {password_file}: {reason(error)}.") from error
    print(f"signature {sign_file(file, key, password=password)}")


@app.command(epilog="Example: `pushforward verify guard.safetensors --key release.pem.pub`")
def verify(file: File, key: Annotated[Path, typer.Option(help="File of the public key, PEM.")]) -> None:
    """Check the signature of a file: exit code 0 if it is as the owner of the key signed it, else 1."""
    from pushforward.io import verify as verify_file

    verify_file(file, key)
    print(f"{file} is as it was signed with the key of {key}")
