"""Tuned constants, in one place. They change speed only, never results beyond rounding. Each names the command that found it."""

from __future__ import annotations

SPLINE_ELEMENTS_PER_THREAD = 2048
CONV_WORK_PER_THREAD = 2048
MADE_WORK_PER_THREAD = 2048
PROGRAM_WORK_PER_THREAD = 2048
