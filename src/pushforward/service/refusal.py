"""`Refusal`: a request that is answered with an error status and one sentence."""

from __future__ import annotations

from pushforward.errors import InputError, PushforwardError, StorageError

__all__ = ["Refusal", "as_refusal"]


class Refusal(PushforwardError):
    """A request cannot be answered.

    Args:
        status: HTTP status: 400 malformed, 401 and 403 access, 404 absent, 408 slow, 409 conflict, 413 too large, 415 unknown
            format, 422 content that does not fit the model, 429 overload, 503 not ready, 504 too late.
        text: what was wrong and what to do.
        retry_after: seconds after which to try again.
    """

    def __init__(self, status: int, text: str, *, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.retry_after = status, text, retry_after


def as_refusal(error: PushforwardError) -> Refusal:
    """The refusal of a request whose answer raised an error on purpose; the status says whose it is."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, InputError):
        return Refusal(422, str(error))
    if isinstance(error, StorageError):
        return Refusal(503, str(error), retry_after=5)
    return Refusal(400, str(error))
