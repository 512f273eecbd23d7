"""All tuned constants. They change time and memory, and results only by rounding.

The values were read in November 2026 on two machines with two cores each (AMD EPYC and Intel Xeon). Below each constant
is the command that reads its effect: where a benchmark varies the constant itself, that one, and else the cases to
compare while one edits the value here.
"""

from __future__ import annotations

# -- threads of the native kernels: the least work that is worth one more thread ---------------------------------------

SPLINE_ELEMENTS_PER_THREAD = 2048
"""Elements of a spline.

Compare ``python -m benchmarks.speed time --threads N --cases 'nsfc-d6-h128/*@512' 'nsfc-d6-h128/*@64'`` for
N = 1 and 2.
"""

CONV_WORK_PER_THREAD = 1 << 20
"""Multiplications of a stack of convolutions.

Compare ``python -m benchmarks.speed time --threads N --cases 'glow*'`` for N = 1 and 2.
"""

MADE_WORK_PER_THREAD = 1 << 19
"""Multiplications of the inverse of an autoregressive transform.

Compare ``python -m benchmarks.speed time --threads N --cases 'maf-d6-h128/sample@*' 'nsfar-d6-h128/sample@*'`` for
N = 1 and 2.
"""

PROGRAM_WORK_PER_THREAD = 200_000
"""Multiplications of a compiled scorer.

Compare ``python -m benchmarks.speed time --threads N --cases 'maf-*/log_prob@64' 'nsfc-*/log_prob@64'`` for
N = 1 and 2, in the rows of the compiled scorer.
"""

NEIGHBOR_WORK_PER_THREAD = 1 << 22
"""Multiplications of distances, or of covariances of neighbors.

Compare ``python -m benchmarks.quality.table_times score --threads N`` for N = 1 and 2.
"""

# -- many rows at a time -----------------------------------------------------------------------------------------------

SCORING_ROWS = 2048
"""Rows that are scored together without gradient, so that activations stay in the cache.

``python -m benchmarks.speed.scoring_parts``
"""

SCORING_WIDE_OUTPUTS = 700
"""Outputs of a layer from which half as many rows are scored together.

Compare ``python -m benchmarks.speed time --clock cpu --threads 1 --cases '*-d63-*/log_prob@8192'``.
"""

MICROBATCH_FROM_ROWS, MICROBATCH_ROWS, MICROBATCH_FROM_OUTPUTS = 8192, 2048, 512
"""Rows from which a training batch is split on a CPU, rows of a part, and outputs of a layer that make a network wide
enough.

``python -m benchmarks.speed.large_batches``
"""

# -- masked layers -----------------------------------------------------------------------------------------------------

MASKED_ROW_BLOCKS = 4
MASKED_FROM_UNITS, MASKED_FROM_INPUTS, MASKED_FROM_ROWS = 512, 384, 256
"""Blocks that a wide masked layer is cut into, and the outputs, inputs and rows from which that is faster than the
whole product.

Compare ``python -m benchmarks.speed time --clock cpu --threads 1 --cases 'maf-d63-h512/*@512' 'maf-d784-h512/*@512'``,
and ``--threads 2``.
"""

# -- samples of autoregressive flows in plain operations ---------------------------------------------------------------

STEP_BLOCK, STEP_BLOCK_LARGE, STEP_BLOCK_LARGE_FROM = 16, 32, 256
"""Coordinates that are solved between two matrix products; the second from so many features on.

Compare ``PUSHFORWARD_KERNELS=plain python -m benchmarks.speed time --clock cpu --threads 1 --cases 'maf-*/sample@512'
'nsfar-*/sample@512'``.
"""

SWEEP_BLOCK = 256
SWEEP_FROM_COORDINATES = 16
SWEEP_WORK_PER_STEP = 200_000
SWEEP_WORK_PER_OUTPUT = 250
"""The most coordinates that are swept together; the coordinates from which sweeps are tried; the work of a sweep that takes as
long as a step (in multiplications); and what the elementwise transform of an output counts in it.

Compare ``PUSHFORWARD_KERNELS=plain python -m benchmarks.speed time --clock cpu --threads 1 --cases
'maf-d63-h512/sample@*' 'maf-d784-h512/sample@*'``.
"""
