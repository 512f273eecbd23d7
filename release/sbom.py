"""The software bill of materials of a release: CycloneDX JSON of the package, what it needs, and the data that it contains.

``python release/sbom.py -o dist/pushforward-sbom.cdx.json`` (``make sbom``) describes the installed packages that the package needs
without extras, as cyclonedx-py finds them in this environment, with versions and licenses. The data are files of the wheel;
``src/pushforward/data/samples/README.md`` says where they come from.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata as metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "src" / "pushforward" / "data" / "samples"
DATA = {
    "thyroid.csv.gz": (
        "CC-BY-4.0",
        "Blood tests of 3,772 patients: R. Quinlan, Thyroid Disease, UCI, doi 10.24432/C5D010",
    ),
    "fashion-mnist.npz": ("MIT", "Images of clothes: Fashion-MNIST, Zalando SE"),
    "fashion-mnist-labels.npz": ("MIT", "Labels of these images: Fashion-MNIST, Zalando SE"),
    "mnist.npz": ("CC-BY-SA-3.0", "Images of digits: MNIST, LeCun, Cortes, Burges"),
    "mnist-labels.npz": ("CC-BY-SA-3.0", "Labels of these images: MNIST, LeCun, Cortes, Burges"),
    "clothes-network.safetensors": ("MIT", "Weights of a small network, trained for this package on Fashion-MNIST"),
}
"""License (SPDX) and origin of each data file in the wheel."""


def needed() -> set[str]:
    """Canonical names of the packages that the package needs, directly or not, without extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    waiting: list[tuple[str, frozenset[str]]] = []

    def want(line: str, extras: frozenset[str]) -> None:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))

    for line in project["dependencies"]:
        want(line, frozenset())
    while waiting:
        name, extras = waiting.pop()
        if name in found and not extras:
            continue
        found.add(name)
        for line in metadata.requires(name) or []:
            want(line, extras)
    return found


def environment() -> dict[str, Any]:
    """What cyclonedx-py says of this environment."""
    words = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "library",
             "--output-reproducible", "--output-format", "JSON", "--spec-version", "1.6", sys.executable]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"cyclonedx-py failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def data_components() -> list[dict[str, Any]]:
    """One component a data file, with its digest and license."""
    return [
        {
            "type": "data",
            "bom-ref": f"data:{name}",
            "name": name,
            "description": origin,
            "licenses": [{"license": {"id": license}}],
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256((SAMPLES / name).read_bytes()).hexdigest()}],
        }
        for name, (license, origin) in DATA.items()
    ]


def bill() -> dict[str, Any]:
    """The bill, in the order of names."""
    found, wanted = environment(), needed()
    root = found["metadata"]["component"]["bom-ref"]
    parts = [
        part
        for part in found["components"]
        if canonicalize_name(part["name"]) in wanted and part["version"] == metadata.version(part["name"])
    ]
    absent = wanted - {canonicalize_name(part["name"]) for part in parts}
    if absent:
        raise SystemExit(f"not installed here: {', '.join(sorted(absent))}")
    direct = {canonicalize_name(Requirement(line).name) for line in _dependencies()}
    data = data_components()
    kept = {part["bom-ref"] for part in parts}
    graph = {
        entry["ref"]: sorted(kept & set(entry.get("dependsOn", [])))
        for entry in found["dependencies"]
        if entry["ref"] in kept
    }
    graph[root] = sorted(part["bom-ref"] for part in parts if canonicalize_name(part["name"]) in direct)
    graph[root] += [part["bom-ref"] for part in data]
    found["components"] = sorted(parts, key=lambda part: part["name"].lower()) + data
    found["dependencies"] = [{"ref": ref, "dependsOn": on} if on else {"ref": ref} for ref, on in sorted(graph.items())]
    return found


def _dependencies() -> list[str]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


def check(text: str) -> None:
    """Validate against the schema of CycloneDX 1.6."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem:
        raise SystemExit(f"not CycloneDX 1.6: {problem}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    output: Path = parser.parse_args().output
    text = json.dumps(bill(), indent=2) + "\n"
    check(text)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text)
    parts = json.loads(text)["components"]
    print(
        f"{output}: {sum(part['type'] == 'library' for part in parts)} packages, {sum(part['type'] == 'data' for part in parts)} data files"
    )
