"""The container recipe: rules that hadolint and the Docker documentation give, since no engine runs on the test machines."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    text = re.sub(r"\\\n\s*", " ", text)
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line.strip()]  # pyright: ignore[reportReturnType]


def test_every_instruction_is_known_and_in_exec_form():
    known = {
        "FROM",
        "WORKDIR",
        "RUN",
        "COPY",
        "ENV",
        "USER",
        "VOLUME",
        "EXPOSE",
        "HEALTHCHECK",
        "STOPSIGNAL",
        "ENTRYPOINT",
        "CMD",
    }
    for name, rest in instructions():
        assert name in known, name
        if name in ("ENTRYPOINT", "CMD"):
            assert isinstance(json.loads(rest), list)
        if name == "WORKDIR":
            assert rest.startswith("/")


def test_images_are_pinned_and_packages_leave_no_lists():
    for name, rest in instructions():
        if name == "FROM":
            assert ":" in rest
            assert ":latest" not in rest
        if "apt-get install" in rest:
            assert "--no-install-recommends" in rest
            assert "rm -rf /var/lib/apt/lists/*" in rest
        if "pip install" in rest:
            assert "--no-cache-dir" in rest
        assert "sudo" not in rest


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
