"""Every `pf.name` in the documentation can be used after `import pushforward as pf` alone."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = [
    ROOT / "README.md",
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "examples").rglob("*.py"),
    *(ROOT / "src").rglob("*.py"),
]


def test_documented_names_exist_without_further_imports() -> None:
    text = "\n".join(file.read_text() for file in FILES)
    names = {found.rstrip(".") for found in re.findall(r"\bpf\.([A-Za-z_][\w.]*)", text)}
    assert len(names) > 50
    # Names of parts come first, before something else imports the part.
    ordered = sorted(names, key=lambda name: (not name.split(".")[-1].islower(), name.count("."), name))
    script = """
        import functools, sys
        import pushforward as pf

        missing = []
        for name in sys.argv[1:]:
            try:
                functools.reduce(getattr, name.split("."), pf)
            except AttributeError:
                missing.append(name)
        sys.exit(f"missing: {missing}" if missing else 0)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), *ordered], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
