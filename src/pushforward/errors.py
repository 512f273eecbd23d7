"""Every error that pushforward raises on purpose.

All derive from :class:`PushforwardError`, and each also from the built-in error that a Python or scikit-learn user
would catch, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

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
    "StorageError",
    "TrainingError",
]


class PushforwardError(Exception):
    """Base class of every error that pushforward raises on purpose."""


class KindError(PushforwardError, TypeError):
    """A likelihood was used as something that it is not (its kind or measure forbids the operation)."""


class ConfigError(PushforwardError, ValueError):
    """A constructor or an option was given a value that it cannot work with."""


class InputError(PushforwardError, ValueError):
    """Data have the wrong shape, type or content."""


class SchemaError(InputError):
    """A table does not have the columns, types or categories that a fitted object expects."""


class CalibrationError(PushforwardError, ValueError):
    """The calibration data cannot support the promise that was asked for."""


class ConvergenceError(PushforwardError, RuntimeError):
    """A numerical solver did not reach its tolerance, so its result is withheld."""


class TrainingError(PushforwardError, RuntimeError):
    """Training met a non-finite loss or cannot go on."""


class StorageError(PushforwardError, OSError):
    """A file cannot be read or written, or its content is damaged or not ours."""


class FormatVersionError(StorageError):
    """A file was written by another version of pushforward, in a format that this one does not read."""


class PushforwardWarning(UserWarning):
    """Base class of every warning that pushforward gives on purpose."""


class KindWarning(PushforwardWarning):
    """Parts were joined in a way that weakens what the likelihood means."""


class SchemaWarning(PushforwardWarning):
    """A table differs from the training table in a way that has a decided answer."""
