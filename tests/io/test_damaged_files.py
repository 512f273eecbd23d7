"""A file that is damaged, malicious or of another program gives one clear StorageError and nothing else."""

import copy
import hashlib
import json
import os
import pickle
import random
import subprocess
import sys
import textwrap
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch

import pushforward as pf
from pushforward import io, registry
from pushforward.errors import FormatVersionError, StorageError

PREFIX = b'{"__metadata__":{"pushforward":"{\\"sha256\\":\\"'


def seal(header: bytes, data: bytes) -> bytes:
    """A file with a correct checksum, which anyone who read the format can forge."""
    header += b" " * (-len(header) % 8)
    raw = bytearray(len(header).to_bytes(8, "little") + header + data)
    at = 8 + len(PREFIX)
    assert raw[8:at] == PREFIX
    raw[at : at + 64] = b"0" * 64
    raw[at : at + 64] = hashlib.sha256(raw).hexdigest().encode()
    return bytes(raw)


def forge(inner: str, entries: str, data: bytes = b"") -> bytes:
    """A file with a correct checksum from the raw text in the metadata (after the digest) and that of the tensor entries."""
    text = json.dumps('{"sha256":"' + "0" * 64 + '"' + inner + "}")
    return seal(('{"__metadata__":{"pushforward":' + text + "}" + entries + "}").encode(), data)


def parts(raw: bytes) -> tuple[dict, dict, bytes]:
    """The inner header, the tensor entries and the data of a file."""
    length = int.from_bytes(raw[:8], "little")
    outer = json.loads(raw[8 : 8 + length])
    return json.loads(outer.pop("__metadata__")["pushforward"]), outer, raw[8 + length :]


def reforge(raw: bytes, change=lambda inner, entries: None, data: bytes | None = None) -> bytes:
    """The same file with changed JSON and a correct checksum."""
    inner, entries, old = parts(raw)
    change(inner, entries)
    rest = {key: value for key, value in inner.items() if key != "sha256"}
    listed = "".join(f",{json.dumps(name)}:{json.dumps(entry)}" for name, entry in entries.items())
    return forge("".join(f",{json.dumps(k)}:{json.dumps(v)}" for k, v in rest.items()), listed,
                 old if data is None else data)  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "m"
    pf.save(pf.models.NICE(2, layers=2, hidden=(2,)), path)
    return path.read_bytes()


def refused(path, raw: bytes, error: type[StorageError] = StorageError, match: str | None = None) -> str:
    """Loading ``raw`` gives exactly one clear error."""
    path.write_bytes(raw)
    with pytest.raises(error, match=match) as caught:
        pf.load(path)
    message = str(caught.value)
    assert 20 < len(message) < 1500
    assert os.listdir(path.parent) == [path.name]
    return message


def _written(path, raw):
    path.write_bytes(raw)
    return path


def outcome(path, raw: bytes) -> pf.models.Model | None:
    """The loaded model, or None for a clear error; anything else fails the test."""
    try:
        return pf.load(_written(path, raw))
    except StorageError as error:
        message = str(error)
    assert 20 < len(message) < 1500
    return None


def test_a_forged_file_without_changes_can_be_read(good, tmp_path):
    (tmp_path / "m").write_bytes(reforge(good))
    assert isinstance(pf.load(tmp_path / "m"), pf.models.NICE)


def test_every_byte_flipped(good, tmp_path):
    draw = random.Random(0)
    assert len(good) > 1500
    for place in range(len(good)):
        raw = bytearray(good)
        raw[place] ^= 1 << draw.randrange(8)
        refused(tmp_path / "m", bytes(raw))


def test_every_length_cut(good, tmp_path):
    for length in range(0, len(good), 7):
        refused(tmp_path / "m", good[:length])
    refused(tmp_path / "m", good + b"\0")
    refused(tmp_path / "m", good + good)


@pytest.mark.parametrize("seed", range(4))
def test_random_damage(good, tmp_path, seed):
    """Overwrite, move, double and drop blocks: no such file is read as another model."""
    draw = random.Random(seed)
    for _ in range(300):
        raw = bytearray(good)
        for _ in range(draw.randint(1, 3)):
            a, b = sorted(draw.sample(range(len(raw)), 2))
            match draw.randrange(5):
                case 0:
                    raw[a:b] = draw.randbytes(b - a)
                case 1:
                    del raw[a:b]
                case 2:
                    raw[a:a] = raw[a:b]
                case 3:
                    raw[a:b] = bytes(b - a)
                case 4:
                    raw[a:b] = reversed(raw[a:b])
        if bytes(raw) != good:
            refused(tmp_path / "m", bytes(raw))


def test_noise(tmp_path):
    draw = random.Random(0)
    for length in [*range(130), 1000, 10_000]:
        refused(tmp_path / "m", draw.randbytes(length))
        refused(tmp_path / "m", bytes(length))
        refused(tmp_path / "m", (length * 8).to_bytes(8, "little") + PREFIX + draw.randbytes(length))


def foreign() -> dict[str, tuple[bytes, str]]:
    class Evil:
        def __reduce__(self):
            return os.system, ("touch evil",)

    new, old, bomb, array = BytesIO(), BytesIO(), BytesIO(), BytesIO()
    torch.save({"a": torch.ones(1)}, new)
    torch.save({"a": torch.ones(1)}, old, _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(50_000_000))
    np.save(array, np.ones(3))
    return {
        "pt": (new.getvalue(), "zip archive"),
        "old pt": (old.getvalue(), "pickle"),
        "zip bomb": (bomb.getvalue(), "zip archive"),
        "pickle": (pickle.dumps(Evil()), "pickle"),
        "pickle 0": (pickle.dumps(Evil(), protocol=0), "not a file that pushforward wrote"),
        "npy": (array.getvalue(), "NumPy"),
        "json": (b'{"a": 1}', "not a file that pushforward wrote"),
        "csv": (b"a,b\n1,2\n", "not a file that pushforward wrote"),
        "empty": (b"", "is empty"),
        "one byte": (b"{", "not a file"),
        "eight bytes": (b"\xff" * 8, "not a file"),
        "huge header": (b"\xff" * 7 + b"\x7f" + b'{"', "not a file"),
        "a zip magic before a header": (b"PK\x03\x04" + bytes(4) + b'{"a":1}', "not a file"),
        "a header one byte longer than the file": ((8).to_bytes(8, "little") + b'{"a":1}', "not a file"),
        "a header that ends with the file": ((7).to_bytes(8, "little") + b'{"a":1}', "a safetensors file that"),
        "ours with a huge header": (b"\xff" * 7 + b"\x7f" + PREFIX + b"0" * 200, "cut short"),
    }


@pytest.mark.parametrize(("raw", "match"), foreign().values(), ids=foreign())
def test_files_of_other_programs(tmp_path, monkeypatch, raw, match):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path / "m", raw, match=match)


def test_other_safetensors_files(tmp_path):
    import safetensors.torch

    for metadata in (None, {"format": "pt"}, {"pushforward": "{}"}):
        raw = safetensors.torch.save({"a": torch.ones(1)}, metadata)
        refused(tmp_path / "m", raw, match="a safetensors file that pushforward did not write")


@pytest.mark.parametrize("kind", ["guard", "density", "checkpoint"])
def test_another_kind_names_the_call_that_reads_it(good, tmp_path, kind):
    raw = reforge(good, lambda inner, _: inner.update(kind=kind))
    call = {"guard": r"pf\.Guard\.load", "density": r"pf\.FlowDensity\.load", "checkpoint": "checkpoint="}[kind]
    refused(tmp_path / "m", raw, match=f"contains a {kind}, not a model: .*{call}")


def test_a_newer_format(good, tmp_path):
    def newer(inner, entries):
        inner.update(format=3, versions={"pushforward": "7.1"}, kind="oracle", model=None)

    refused(tmp_path / "m", reforge(good, newer), FormatVersionError, r"format 3 .*pushforward 7\.1.*upgrade")


def test_the_format_before_the_names_changed(good, tmp_path):
    def old(inner, entries):
        inner.update(format=1, model={"class": "maps.Affine", "arguments": {"features": 2}})

    refused(
        tmp_path / "m", reforge(good, old), FormatVersionError, "early version 0.1 .*fit the model again, and save it"
    )


HEADERS = [
    ("format", 0), ("format", -1), ("format", "1"), ("format", True), ("format", None), ("format", 1.0), ("format", []),
    ("kind", "oracle"), ("kind", None), ("kind", []), ("kind", {}), ("kind", 1), ("versions", []), ("versions", None),
    ("versions", "x"), ("model", None), ("model", []), ("model", "models.NICE"), ("model", 1), ("model", {}),
    ("model", {"class": "models.NICE"}), ("model", {"class": "models.NICE", "arguments": []}),
    ("model", {"class": "models.NICE", "arguments": {}, "more": 1}),
    ("model", {"class": "models.NICE", "arguments": {}}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), HEADERS, ids=str)
def test_wrong_headers(good, tmp_path, key, value):
    refused(tmp_path / "m", reforge(good, lambda inner, _: inner.update({key: value})))


@pytest.mark.parametrize("key", ["format", "kind", "versions", "model"])
def test_missing_headers(good, tmp_path, key):
    refused(tmp_path / "m", reforge(good, lambda inner, _: inner.pop(key)))


TAIL = ',"format":2,"kind":"model","versions":{},"model":'
TEXTS = {
    "nested lists": TAIL + "[" * 100_000 + "]" * 100_000,
    "nested objects": TAIL + '{"a":' * 100_000 + "1" + "}" * 100_000,
    "nested a little too deep": TAIL + "[" * 500 + "]" * 500,
    "nested classes": TAIL + '{"class":"transforms.Inverse","arguments":{"transform":' * 25 + "1" + "}}" * 25,
    "not closed": TAIL + "[" * 100_000,
    "nan": TAIL + "NaN",
    "infinity": TAIL + "-Infinity",
    "overflow": TAIL + "1e999",
    "long integer": TAIL + "9" * 100_000,
    "repeated key": ',"kind":"model"' + TAIL + "{}",
    "repeated digest": ',"sha256":"0"' + TAIL + "{}",
    "repeated argument": TAIL + '{"class":"models.NICE","arguments":{"features":2,"features":3}}',
    "not JSON": TAIL + "model",
    "nothing": "",
}


@pytest.mark.parametrize("inner", TEXTS.values(), ids=TEXTS)
def test_malicious_json(tmp_path, inner):
    refused(tmp_path / "m", forge(inner, ""))


def entry(dtype="F32", shape=(1,), offsets=(0, 4)) -> str:
    return json.dumps({"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)})


LAYOUTS = {
    "negative offset": f',"a":{entry(offsets=(-4, 0))}',
    "offset beyond the end": f',"a":{entry(shape=(2,), offsets=(0, 8))}',
    "offsets swapped": f',"a":{entry(offsets=(4, 0))}',
    "overlap": f',"a":{entry()},"b":{entry()}',
    "hole": f',"a":{entry(shape=(0,), offsets=(0, 0))}',
    "wrong size": f',"a":{entry(shape=(3,))}',
    "negative shape": f',"a":{entry(shape=(-1,))}',
    "overflowing shape": f',"a":{entry(shape=(2**62, 4), offsets=(0, 4))}',
    "overflowing empty": f',"a":{entry(shape=(0, 2**62, 2**62), offsets=(0, 0))},"b":{entry()}',
    "huge empty": f',"a":{entry(shape=(0, 2**40), offsets=(0, 0))},"b":{entry()}',
    "huge integer": f',"a":{entry(shape=(10**30,))}',
    "text shape": ',"a":{"dtype":"F32","shape":"1","data_offsets":[0,4]}',
    "float shape": ',"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}',
    "no shape": ',"a":{"dtype":"F32","data_offsets":[0,4]}',
    "unknown type": f',"a":{entry(dtype="F31")}',
    "complex": f',"a":{entry(dtype="C64", shape=())}',
    "float8": f',"a":{entry(dtype="F8_E4M3", shape=(4,))}',
    "type is no text": f',"a":{entry(dtype=["F32"])}',
    "entry is no object": ',"a":[]',
    "repeated tensor": f',"a":{entry()},"a":{entry()}',
    "second metadata": ',"__metadata__":{}',
    "bools that are neither": f',"a":{entry(dtype="BOOL", shape=(4,))}',
    "nested": ',"a":' + "[" * 100_000 + "]" * 100_000,
}


@pytest.mark.parametrize("kind", ["C64", "F8_E4M3", "F31"])
def test_a_type_that_is_never_written_is_named(tmp_path, kind):
    size = {"C64": (), "F8_E4M3": (4,), "F31": (1,)}[kind]
    raw = forge(TAIL + "{}", f',"a":{entry(dtype=kind, shape=size)}', b"abcd")
    refused(tmp_path / "m", raw, match="tensor 'a' in a type that pushforward does not write")


@pytest.mark.parametrize("entries", LAYOUTS.values(), ids=LAYOUTS)
def test_malicious_layouts(tmp_path, entries):
    refused(tmp_path / "m", forge(TAIL + "{}", entries, b"abcd"))


def rename(inner, entries):
    entries["other"] = entries.pop(next(iter(entries)))


def missing(inner, entries):
    name = max(entries, key=lambda name: entries[name]["data_offsets"])
    del entries[name]


def swapped(inner, entries):
    (a, b), *_ = [(a, b) for a in entries for b in entries if entries[a]["shape"] != entries[b]["shape"]]
    entries[a], entries[b] = entries[b], entries[a]


def reshaped(inner, entries):
    next(e for e in entries.values() if e["shape"] == [2])["shape"] = [2, 1]


def retyped(inner, entries):
    next(e for e in entries.values() if e["dtype"] == "F32")["dtype"] = "I32"


@pytest.mark.parametrize("change", [rename, swapped, reshaped, retyped])
def test_tensors_that_do_not_belong_to_the_model(good, tmp_path, change):
    refused(tmp_path / "m", reforge(good, change), match="tensor")


def test_a_tensor_that_is_missing(good, tmp_path):
    _, entries, data = parts(good)
    cut = max(e["data_offsets"][0] for e in entries.values())
    refused(tmp_path / "m", reforge(good, missing, data[:cut]), match="the file lacks the tensors '[a-z.0-9_]+'")


VALUES = [
    None, True, False, -1, 0, 3, 10**6, 10**18, -(10**18), 2**200, 0.5, 1e308, -1e-300, "", "2", "os.system",
    "__import__('os').system('touch evil')", "x" * 1_000, [], [2], [-1], [10**18], [[2]],
    [8] * 1_000, ["os"], [None], {}, {"class": "models.NICE", "arguments": {"features": 2}},
    {"class": "transforms.Affine", "arguments": {"features": 2}}, {"class": "os.system", "arguments": {"command": "true"}},
]  # fmt: skip


def test_every_argument_with_every_wrong_value(good, tmp_path):
    """A model that can be read has the tensors of the file and is described by those arguments."""
    original = pf.load(_written(tmp_path / "m", good))
    shapes = {k: tuple(t.shape) for k, t in original.state_dict().items()}
    for name in [*parts(good)[0]["model"]["arguments"], "self", "__class__", "chain", "args", "kwargs"]:
        for value in VALUES:
            raw = reforge(good, lambda inner, _, n=name, v=value: inner["model"]["arguments"].update({n: v}))
            loaded = outcome(tmp_path / "m", raw)
            if loaded is not None:
                # None may stand for what another argument says too: a width for the shape, and the other way round.
                found = registry.describe(loaded)["arguments"]
                assert found[name] == value or (value is None and found == registry.describe(original)["arguments"])
                assert {k: tuple(t.shape) for k, t in loaded.state_dict().items()} == shapes
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.parametrize(
    "value", [[2] * 1_000_000, [[[2]] * 300] * 300, "x" * 10_000_000], ids=["list", "lists", "text"]
)
@pytest.mark.parametrize("key", ["features", "hidden", "prior"])
def test_long_arguments(good, tmp_path, key, value):
    refused(tmp_path / "m", reforge(good, lambda inner, _: inner["model"]["arguments"].update({key: value})))


CLASSES = ["os.system", "torch.nn.Linear", "nn.Linear", "__import__", "builtins.eval", "models.core.Flow", "Flow", "",
           "models.Model", "transforms.Transform", "models.NICE.__init__", "models.nice", None, 1, True, [], ["models.NICE"],
           {"class": "models.NICE"}, "x" * 1_000_000, "\0", "transforms.Chain", "networks.MLP", "distributions.Normal"]  # fmt: skip


@pytest.mark.parametrize("name", CLASSES, ids=lambda name: str(name)[:30])
@pytest.mark.parametrize("arguments", [{}, {"features": 2}, {"in_features": 2, "out_features": 2}], ids=str)
def test_malicious_classes(good, tmp_path, name, arguments):
    raw = reforge(good, lambda inner, _: inner.update(model={"class": name, "arguments": arguments}))
    refused(tmp_path / "m", raw)


@pytest.mark.parametrize("key", ["transforms", "chain", "base"])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(value)[:30])
def test_malicious_parts(good, tmp_path, key, value):
    affine, normal = (
        {"class": name, "arguments": {"features": 2}} for name in ("transforms.Affine", "distributions.Normal")
    )
    flow = {"chain": {"class": "transforms.Chain", "arguments": {"transforms": [affine]}}, "base": normal}
    if key == "transforms":
        flow["chain"]["arguments"]["transforms"] = value
    else:
        flow[key] = value
    refused(
        tmp_path / "m", reforge(good, lambda inner, _: inner.update(model={"class": "models.Flow", "arguments": flow}))
    )


def test_random_changes_with_a_correct_checksum(good, tmp_path):
    """A change anywhere in the JSON gives a StorageError, or a model that the changed description describes."""
    draw = random.Random(0)
    words = [
        *VALUES[:-6],
        "class",
        "arguments",
        "transforms.Affine",
        "F64",
        [0, 4],
        {"class": "transforms.Chain", "arguments": {}},
    ]

    def mutate(inner, entries):
        nodes = []
        stack: list = [inner, entries]
        while stack:
            node = stack.pop()
            nodes.append(node)
            stack.extend(n for n in (node.values() if isinstance(node, dict) else node) if isinstance(n, (dict, list)))
        for _ in range(draw.randint(1, 3)):
            node = draw.choice([n for n in nodes if n])
            key = draw.choice(list(node)) if isinstance(node, dict) else draw.randrange(len(node))
            match draw.randrange(3):
                case 0:
                    node[key] = copy.deepcopy(draw.choice(words))
                case 1 if isinstance(node, dict):
                    node[draw.choice(["x", "class", "features", "model", "kind"])] = node[key]
                case _:
                    node.pop(key)
                    nodes = [n for n in nodes if n]
            if not any(nodes):
                break

    loaded = 0
    for _ in range(1000):
        raw = reforge(good, mutate)
        if len(raw) > 5_000_000:
            continue
        model = outcome(tmp_path / "m", raw)
        if model is not None:
            loaded += 1
            assert isinstance(model, pf.models.Model)
            io.pack(model)
    assert loaded < 700
    assert os.listdir(tmp_path) == ["m"]


def thing(name: str, **arguments) -> dict:
    return {"class": name, "arguments": arguments}


def chain(count: int, part: dict) -> dict:
    return thing(
        "models.Flow",
        chain=thing("transforms.Chain", transforms=[part] * count),
        base=thing("distributions.Normal", features=2),
    )


BIG = 60_000
HUGE = {
    "features": thing("models.NICE", features=BIG),
    "features beyond": thing("models.NICE", features=10**9),
    "layers": thing("models.NICE", features=2, layers=BIG),
    "hidden": thing("models.NICE", features=2, hidden=[BIG] * 3),
    "list": thing("models.NICE", features=2, hidden=[8] * 99_999),
    "both": thing("models.NICE", features=BIG, layers=BIG, hidden=[BIG] * 5_000),
    "autoregressive": thing("models.MAF", features=BIG, layers=BIG, hidden=[BIG]),
    "one autoregressive layer": thing("models.MAF", features=BIG, layers=1, hidden=[BIG]),
    "splines": thing("models.NSF", features=BIG, bins=BIG, layers=BIG),
    "blocks": thing("models.NSF", features=2, hidden=[BIG, BIG]),
    "chain": chain(20_000, thing("transforms.Affine", features=2)),
    "chain without weights": chain(20_000, thing("transforms.Logit", features=2)),
    "members": thing("models.Ensemble", models=[thing("models.NICE", features=2, hidden=[])] * 20_000),
    "mixture": thing("models.Flow", chain=thing("transforms.Affine", features=BIG),
                     base=thing("distributions.GaussianMixture", features=BIG, components=BIG)),
    "permutation": thing("models.Flow", chain=thing("transforms.Permutation", features=[BIG, BIG, BIG]),
                         base=thing("distributions.Normal", features=[BIG, BIG, BIG])),
}  # fmt: skip
"""Descriptions that need far more than their file contains."""


def test_memory_time_and_side_effects_stay_bounded(good, tmp_path):
    """Runs in a new process with an audit hook that stops imports, execution and writing."""
    for k, description in enumerate(HUGE.values()):
        raw = reforge(good, lambda inner, _, d=description: inner.update(model=d))
        (tmp_path / f"huge{k}").write_bytes(raw)
    for k, (raw, _) in enumerate(foreign().values()):
        (tmp_path / f"foreign{k}").write_bytes(raw)
    for k, name in enumerate(CLASSES[:10]):
        raw = reforge(good, lambda inner, _, n=name: inner.update(model={"class": n, "arguments": {}}))
        (tmp_path / f"class{k}").write_bytes(raw)
    (tmp_path / "good").write_bytes(good)
    script = """
        import os, resource, sys, time
        import pushforward as pf
        os.chdir(sys.argv[1])
        pf.load("good")
        names = sorted(set(os.listdir()) - {"good"})
        for name in names:                # twice: what torch itself imports late comes in the first round
            try: pf.load(name)
            except pf.errors.StorageError: pass
        def audit(event, args):
            if event in ("import", "compile", "exec", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen",
                         "os.remove", "os.rename", "os.mkdir", "os.rmdir", "pickle.find_class", "socket.__new__",
                         "tempfile.mkstemp", "os.putenv", "os.fork"):
                raise SystemExit(f"{event} {args}")
            if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                raise SystemExit(f"{event} {args}")
        sys.addaudithook(audit)
        worst = refused = 0
        for name in names:
            start = time.process_time()
            try: pf.load(name)
            except pf.errors.StorageError: refused += 1
            worst = max(worst, time.process_time() - start)
        try:  # of this program alone: getrusage counts the process that started it too
            peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
        except OSError:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(len(names), refused, worst, peak / 1024, flush=True)
        os._exit(0)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=120
    )
    assert done.returncode == 0, done.stderr + done.stdout
    files, count, seconds, megabytes = map(float, done.stdout.split())
    assert files == count == len(HUGE) + len(foreign()) + 10
    assert seconds < 5
    assert megabytes < 1500
    assert sorted(os.listdir(tmp_path)) == sorted([f"huge{k}" for k in range(len(HUGE))] + ["good"] +
        [f"foreign{k}" for k in range(len(foreign()))] + [f"class{k}" for k in range(10)])  # fmt: skip


def test_a_file_larger_than_the_limit_is_not_read(good, tmp_path):
    path = _written(tmp_path / "m", good)
    with pytest.raises(StorageError, match="too large"):
        io.read(path, limit=len(good) - 1)
    with open(path, "r+b") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that takes no room
    with pytest.raises(StorageError, match="too large"):
        pf.load(path)


def test_a_file_that_changes_while_it_is_read(good, tmp_path, monkeypatch):
    path = _written(tmp_path / "m", good)
    real = os.fstat

    def grow(descriptor):
        result = real(descriptor)
        with open(path, "ab") as file:
            file.write(b"more")
        return result

    monkeypatch.setattr(os, "fstat", grow)
    with pytest.raises(StorageError):
        io.read(path)
