"""Write the tables of the documentation from the result files, so that no figure is typed twice.

    python -m benchmarks.pages            # write the tables of all pages
    python -m benchmarks.pages --check    # name the pages whose tables differ from the result files, and exit with 1

A table of a page stands between two comments. The first names the command that prints it:

    <!-- python -m benchmarks.scale show -->
    | rows | ...
    <!-- end -->

The first table of the output is meant, unless the comment says ``table 2 of python -m ...`` or ``list of python -m ...``, which is the
lines that begin with a dash. The command is run in this process, from the root of the repository; it only reads a result file.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import inspect
import io
import re
import shlex
import sys
from pathlib import Path

__all__ = ["differing", "filled", "pages"]

ROOT = Path(__file__).parents[1]
MARKED = re.compile(
    r"(?P<first><!-- (?:(?P<kind>table|list)(?: (?P<number>\d+))? of )?(?P<command>python -m [^\n]+?) -->\n)"
    r"(?P<text>.*?)(?P<last><!-- end -->)",
    re.DOTALL,
)
BLOCKS = {"table": re.compile(r"(?:^\|.*\n)+", re.MULTILINE), "list": re.compile(r"(?:^- .*\n)+", re.MULTILINE)}


def printed(command: str) -> str:
    """What ``python -m MODULE ARGUMENTS`` prints."""
    _, _, name, *arguments = shlex.split(command)
    package = importlib.util.find_spec(name)
    if package is not None and package.submodule_search_locations is not None:
        name += ".__main__"
    main = importlib.import_module(name).main
    out, before = io.StringIO(), sys.argv
    with contextlib.redirect_stdout(out), contextlib.chdir(ROOT):
        try:
            sys.argv = [name, *arguments]
            main(arguments) if inspect.signature(main).parameters else main()
        finally:
            sys.argv = before
    return out.getvalue()


def filled(text: str, outputs: dict[str, str]) -> str:
    """A page with the tables that the commands print; ``outputs`` keeps what was printed, for other tables of the same command."""

    def block(found: re.Match[str]) -> str:
        command, kind, number = found["command"], found["kind"] or "table", int(found["number"] or 1)
        if command not in outputs:
            outputs[command] = printed(command)
        blocks = BLOCKS[kind].findall(outputs[command])
        if len(blocks) < number:
            raise LookupError(
                f"`{command}` prints {len(blocks)} blocks of the kind {kind}, and number {number} is wanted"
            )
        return f"{found['first']}\n{blocks[number - 1]}\n{found['last']}"

    return MARKED.sub(block, text)


def pages() -> list[Path]:
    """The pages that have such tables."""
    return [
        path
        for path in sorted((ROOT / "docs").rglob("*.md"))
        if "_build" not in path.parts and MARKED.search(path.read_text())
    ]


def differing(write: bool = False) -> list[str]:
    """The pages whose tables differ from what the result files say; ``write=True`` changes them."""
    outputs: dict[str, str] = {}
    found = []
    for path in pages():
        text, name = path.read_text(), str(path.relative_to(ROOT))
        try:
            new = filled(text, outputs)
        except LookupError as error:
            found.append(f"{name} ({error})")
            continue
        if new != text:
            found.append(name)
            if write:
                path.write_text(new)
    return found


def main(arguments: list[str]) -> None:
    """Write or check all pages."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pages", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args(arguments).check
    found = differing(write=not check)
    print(
        "\n".join(
            f"{name} differs from the result files"
            if check
            else f"{name} is written"
            if "(" not in name
            else f"{name} is not written"
            for name in found
        )
        or "all pages agree with the result files"
    )
    if check and found:
        raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
