"""Print a table whose single readings were not kept: ``python -m benchmarks.recorded benchmarks/results/large-batches.json``.

The file has the figures as they were printed by the command that it names, with date and machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.common.results import markdown


def main(arguments: list[str]) -> None:
    """Print the table of a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recorded", description=__doc__)
    parser.add_argument("file", type=Path)
    table = json.loads(parser.parse_args(arguments).file.read_text())
    print(markdown(table["columns"], table["rows"], table.get("align")))
    print(f"\nMade by `{table['command']}`, {table['date']}, on {table['machine']}.")


if __name__ == "__main__":
    main(sys.argv[1:])
