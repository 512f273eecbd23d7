"""The lines that the gallery shows for clients run as printed: curl, and JavaScript in Node."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pushforward import Guard

EXAMPLE = Path(__file__).parents[2] / "examples" / "operation" / "plot_serve_and_call.py"


@pytest.fixture
def url(start, tmp_path) -> str:
    """A service with the guard of the example."""
    flow = np.random.default_rng(0).normal(5, 1, 1000)
    rows = {"flow": flow, "pressure": 2 * flow + 0.2 * np.random.default_rng(1).normal(size=1000)}
    Guard(alpha=0.01, random_state=0, effort="fast").fit(rows).save(tmp_path / "pump.safetensors")
    return start("pump.safetensors", "--durability", "none").url


def printed(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_curl_and_javascript_of_the_gallery(url: str) -> None:
    text = EXAMPLE.read_text()
    programs = [name for name in ("curl", "node") if shutil.which(name)]
    if not programs:
        pytest.skip("neither curl nor node is here")
    if "curl" in programs:
        line = re.search(r"``(curl \$URL/score .*?)``", text)
        assert line is not None
        answer = json.loads(printed("bash", "-c", f"URL={url}; {line[1]}"))
        assert answer["rows"][0]["p_value"] <= 0.01
        assert answer["rows"][0]["alarm"]
    if "node" in programs:
        block = re.search(r"code-block:: javascript\n#\n((?:#     .*\n)+)", text)
        assert block is not None
        lines = [line.removeprefix("#").strip() for line in block[1].splitlines()]
        shown = printed("node", "--input-type=module", "-e", f"const url = '{url}/';\n" + "\n".join(lines))
        assert 0 < float(shown) <= 0.01
