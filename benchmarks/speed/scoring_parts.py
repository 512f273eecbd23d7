"""Speed of scoring many rows in parts: CPU time of ``log_prob`` of 8,192 and 32,768 rows, at once and in parts, interleaved.

python -m benchmarks.speed.scoring_parts               # a minute
"""

from __future__ import annotations

import math
import statistics
import time

import torch

import pushforward as pf
from benchmarks.common.results import machine, markdown
from pushforward.kernels import tuning

ROWS, WHOLE, ROUNDS = (8192, 32_768), 1 << 40, 4
FLOWS = {
    "MAF, D 63, width 512": lambda: pf.models.MAF(63, layers=5, hidden=(512, 512)),
    "RealNVP, D 63, width 512": lambda: pf.models.RealNVP(63, layers=8, hidden=(512, 512)),
    "MAF, D 6, width 128": lambda: pf.models.MAF(6, layers=5, hidden=(128, 128)),
    "RealNVP, D 6, width 128": lambda: pf.models.RealNVP(6, layers=8, hidden=(128, 128)),
}


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    part, table = tuning.SCORING_ROWS, []
    for name, make in FLOWS.items():
        model = make().eval()
        x = {rows: torch.randn(rows, *model.shape) for rows in ROWS}
        found: dict[tuple[int, int], list[float]] = {(rows, size): [] for rows in ROWS for size in (WHOLE, part)}
        for turn in range(ROUNDS + 1):
            for (rows, size), seconds in found.items():
                tuning.SCORING_ROWS = size
                start = time.process_time()
                model.log_prob(x[rows])
                if turn:
                    seconds.append(time.process_time() - start)
        tuning.SCORING_ROWS = part
        ms = {key: 1e3 * statistics.median(seconds) for key, seconds in found.items()}
        row = [name]
        for size in (WHOLE, part):
            few, many = (ms[rows, size] for rows in ROWS)
            row += [f"{few:.1f}", f"{many:.1f}", f"{math.log(many / few) / math.log(ROWS[1] / ROWS[0]):.2f}"]
        table.append(row)
    head = ["flow", "whole, 8,192, ms", "32,768", "exponent", f"parts of {part:,}, 8,192, ms", "32,768", "exponent"]
    print(markdown(head, table))
    print(f"\nCPU time, one thread, medians of {ROUNDS}, {machine()}.")


if __name__ == "__main__":
    main()
