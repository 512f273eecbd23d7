"""Models as programs: lists of small operations on one row, which a compiled function runs (:class:`~pushforward.kernels.Program`)."""

from pushforward.programs.few_rows import FewRows
from pushforward.programs.writing import Unwritten, write

__all__ = ["FewRows", "Unwritten", "write"]
