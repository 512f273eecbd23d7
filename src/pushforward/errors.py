"""Every error that pushforward raises on purpose.

All derive from :class:`PushforwardError`, and each also from a built-in error, so that ``except ValueError`` and the like catch
them too.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

__all__ = [
    "CalibrationError",
    "ConfigError",
    "ConvergenceError",
    "FormatVersionError",
    "InputError",
    "KindError",
    "KindWarning",
    "PushforwardError",
    "PushforwardWarning",
    "SchemaError",
    "SchemaWarning",
    "SignatureError",
    "StorageError",
    "TrainingError",
    "collected",
    "in_words",
    "warn_caller",
]


class PushforwardError(Exception):
    """Base class of every error that pushforward raises on purpose."""


class KindError(PushforwardError, TypeError):
    """The kind or the measure of a likelihood does not permit an operation."""


class ConfigError(PushforwardError, ValueError):
    """An argument has a value that is not allowed."""


class InputError(PushforwardError, ValueError):
    """Data have a wrong shape, type or content."""


class SchemaError(InputError):
    """A table lacks the columns, types or categories that a fitted object needs."""


class CalibrationError(PushforwardError, ValueError):
    """The calibration data are too few, or not suitable, for the guarantee that was requested."""


class ConvergenceError(PushforwardError, RuntimeError):
    """A numerical solver did not reach its tolerance, so there is no result."""


class TrainingError(PushforwardError, RuntimeError):
    """Training cannot go on, for example after a loss that is not finite."""


class StorageError(PushforwardError, OSError):
    """A file cannot be read or written, or its content is damaged or not from pushforward."""


class FormatVersionError(StorageError):
    """A file was written by another version of pushforward, in a format that this one does not read."""


class SignatureError(StorageError):
    """A file that must be signed is not signed with the key that was asked for, or was changed since."""


class PushforwardWarning(UserWarning):
    """Base class of every warning that pushforward gives on purpose."""


class KindWarning(PushforwardWarning):
    """A combination of parts gives a likelihood of a weaker kind, such as a lower bound."""


class SchemaWarning(PushforwardWarning):
    """A table differs from the training table in a way that is handled; the message says how.

    Attributes:
        problem: the :class:`~pushforward.data.Problem` that it is about; None for others.
    """

    problem: object = None


_PACKAGE = str(Path(__file__).parent)
_COLLECTED: ContextVar[tuple[tuple[type[Warning], list[Warning]], ...]] = ContextVar("collected", default=())


def in_words(error: Exception) -> str:
    """What an error says of content that is not trusted, for a sentence to a user.

    The errors of Python for an absent entry or a wrong type name neither file nor entry: "'seed'", "'int' object is not iterable".

    Args:
        error: what reading the content raised.

    Example:
        >>> from pushforward.errors import in_words
        >>> in_words(KeyError("seed"))
        "its entry 'seed' is missing."
    """
    if isinstance(error, PushforwardError):
        return str(error)
    if isinstance(error, KeyError):
        return f"its entry {str(error.args[0] if error.args else '')[:80]!r} is missing."
    if isinstance(error, MemoryError):
        return "it would need more memory than there is."
    if unknown := re.search(r"unexpected keyword argument '(.{1,80})'", str(error)):
        return f"this version of pushforward does not know its entry {unknown[1]!r}."
    return "its entries have types or sizes that do not fit each other."


@contextmanager
def collected(category: type[Warning]) -> Iterator[list[Warning]]:
    """Collect what :func:`warn_caller` would give in the ``with`` block, in this thread only; nothing of it is given.

    ``warnings.catch_warnings`` changes the filters of the whole process, so two threads that overlap can leave those of one behind.

    Args:
        category: class of the warnings; others are given.

    Example:
        >>> from pushforward.errors import SchemaWarning, collected, warn_caller
        >>> with collected(SchemaWarning) as found:
        ...     warn_caller("the table has a new category.", SchemaWarning)
        >>> found
        [SchemaWarning('the table has a new category.')]
    """
    found: list[Warning] = []
    before = _COLLECTED.set((*_COLLECTED.get(), (category, found)))
    try:
        yield found
    finally:
        _COLLECTED.reset(before)


def warn_caller(message: str | Warning, category: type[Warning] = PushforwardWarning) -> None:
    """Give a warning that points at the line outside of this package which led to it, or leave it to :func:`collected`.

    Args:
        message: of the warning, or the warning itself.
        category: its class, for a message.

    Example:
        >>> import warnings
        >>> from pushforward.errors import warn_caller
        >>> with warnings.catch_warnings(record=True) as given:
        ...     warnings.simplefilter("always")
        ...     warn_caller("the table has a new category.")
        >>> str(given[0].message)
        'the table has a new category.'
    """
    warning = message if isinstance(message, Warning) else category(message)
    for wanted, found in reversed(_COLLECTED.get()):
        if isinstance(warning, wanted):
            found.append(warning)
            return
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(warning, stacklevel=level)
