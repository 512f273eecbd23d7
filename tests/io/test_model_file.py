"""A model file is complete or absent, and reading it returns what was written."""

import errno
import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import safetensors
import torch
from torch import nn

import pushforward as pf
from pushforward import io, registry
from pushforward.errors import ConfigError, StorageError
from pushforward.transforms import Affine, Chain, Logit, Permutation, Step, TorchTransform, Transform

TENSORS = {
    "float64": torch.randn(3, 2, dtype=torch.float64),
    "float32": torch.tensor([1.0, -0.0, float("inf"), float("nan")]),
    "float16": torch.randn(5).half(),
    "bfloat16": torch.randn(1, 2, 3).bfloat16(),
    "int64": torch.tensor([2**63 - 1, -(2**63)]),
    "int32": torch.tensor([7], dtype=torch.int32),
    "int16": torch.tensor([-7], dtype=torch.int16),
    "int8": torch.tensor([-128, 127], dtype=torch.int8),
    "uint8": torch.arange(5, dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
    'né 名 " \\ \n': torch.ones(2),
}


def bits(tensor: torch.Tensor) -> tuple:
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


class Scale(Transform):
    """z = w x, with one weight stored under two names."""

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.features = features
        self.weight = nn.Parameter(torch.full((features,), 2.0))
        self.twin = self.weight
        self.frozen = nn.Parameter(torch.zeros(features), requires_grad=False)

    def encode(self, x, context=None, *, noise=None):
        return Step(x * self.weight + self.frozen, self.zero_log_det(x) + self.twin.abs().log().sum())

    def decode(self, z, context=None, *, noise=None):
        return (z - self.frozen) / self.weight


class Loose(Scale):
    """Has state that its state_dict does not contain."""

    def __init__(self, features: int, where: str) -> None:
        super().__init__(features)
        self.where = where
        if where == "buffer":
            self.register_buffer("lost", torch.ones(1), persistent=False)
        else:
            self.lost = torch.ones(1)


@pytest.fixture(autouse=True, scope="module")
def own_classes():
    """Register these transforms as a user would, but only while these tests run."""
    for cls in (Scale, Loose):
        registry.register("test")(cls)
    yield
    for cls in (Scale, Loose):
        del registry._CLASSES[f"test.{cls.__name__}"]


def randomized(model: pf.models.Model, seed: int = 0) -> pf.models.Model:
    """Change every weight, so that no test depends on the initial values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))
    return model.eval()


MODELS = {
    "nice": lambda: pf.models.NICE(4, hidden=(8, 8)),
    "realnvp": lambda: pf.models.RealNVP(4, context=2, hidden=(8, 8)),
    "maf": lambda: pf.models.MAF(3, hidden=(8, 8)),
    "iaf": lambda: pf.models.IAF(3, hidden=(8, 8)),
    "nsf coupling": lambda: pf.models.NSF(4, hidden=(8, 8), layers=2),
    "nsf autoregressive": lambda: pf.models.NSF(2, layer="autoregressive", hidden=(8, 8), layers=2),
    "nsf one feature": lambda: pf.models.NSF(1, hidden=(8, 8), layers=2),
    "no weights": lambda: pf.models.Flow(Logit(2), pf.distributions.Uniform(2, -9.0, 9.0)),
    "parts": lambda: pf.models.Flow(Chain(Permutation(3, seed=2**40), Affine(3), Scale(3)), pf.distributions.Normal(3)),
}


def test_header_and_tensors_are_read_as_written(tmp_path):
    header = {"kind": "checkpoint", "step": 2**60, "rate": 0.1, "names": ["a", "ü", "\ud800", '"\\\n'], "none": None,
              "yes": True, "deep": {"a": [{"b": [[]]}]}}  # fmt: skip
    io.write(tmp_path / "f", header, TENSORS)
    found, tensors = io.read(tmp_path / "f", "checkpoint")
    assert found == header | {"format": io.FORMAT, "versions": found["versions"]}
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["pushforward"] == pf.__version__
    assert {name: bits(t) for name, t in tensors.items()} == {name: bits(t) for name, t in TENSORS.items()}


def test_a_file_that_is_read_and_written_again_is_the_same(tmp_path):
    io.write(tmp_path / "a", {"kind": "model", "x": 1}, TENSORS)
    header, tensors = io.read(tmp_path / "a")
    io.write(tmp_path / "b", header, tensors)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_safetensors_library_reads_it(tmp_path):
    io.write(tmp_path / "f", {"kind": "model", "x": 1}, TENSORS)
    with safetensors.safe_open(tmp_path / "f", "pt") as file:
        text = json.loads(file.metadata()["pushforward"])
        assert (text["kind"], text["x"], text["format"]) == ("model", 1, 2)
        assert {name: bits(file.get_tensor(name)) for name in file.keys()} == {n: bits(t) for n, t in TENSORS.items()}  # noqa: SIM118


def test_shared_and_strided_memory(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    parts = {"whole": whole, "again": whole, "column": whole[:, 1], "transposed": whole.T,
             "spread": torch.ones(1).expand(5), "leaf": nn.Parameter(whole[0])}  # fmt: skip
    io.write(tmp_path / "f", {"kind": "model"}, parts)
    _, tensors = io.read(tmp_path / "f")
    for name, part in parts.items():
        assert torch.equal(tensors[name], part)
    tensors["whole"].zero_()
    assert torch.equal(tensors["again"], whole)


@pytest.mark.parametrize(
    ("header", "tensors"),
    [
        ({}, {}),
        ({"kind": "photo"}, {}),
        ({"kind": "model", "x": float("nan")}, {}),
        ({"kind": "model", "x": float("-inf")}, {}),
        ({"kind": "model", "x": {1, 2}}, {}),
        ({"kind": "model", "x": {1: "a", "1": "b"}}, {}),
        ({"kind": "model", "x": json.loads("[" * 100 + "]" * 100)}, {}),
        ({"kind": "model"}, {"x": torch.ones(1, dtype=torch.complex64)}),
        ({"kind": "model"}, {"x": torch.ones(2, 2).to_sparse()}),
        ({"kind": "model"}, {"x": torch.ones(2, device="meta")}),
        ({"kind": "model"}, {"x": [1.0]}),
        ({"kind": "model"}, {"__metadata__": torch.ones(1)}),
    ],
    ids=str,
)
def test_values_that_a_file_cannot_store(tmp_path, header, tensors):
    with pytest.raises(ConfigError):
        io.write(tmp_path / "f", header, tensors)
    assert os.listdir(tmp_path) == []


def test_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    io.write("~/a", {"kind": "model"}, {})
    assert io.read(tmp_path / "a")[0] == io.read("~/a")[0] == io.read(os.fsencode(tmp_path / "a"))[0]
    monkeypatch.chdir(tmp_path)
    io.write("b", {"kind": "model"}, {})
    long = "x" * 255
    io.write(long, {"kind": "model"}, {})
    (tmp_path / "link").symlink_to("b")
    io.write("link", {"kind": "guard"}, {})
    assert (tmp_path / "link").is_symlink()
    assert io.read("b")[0]["kind"] == "guard"
    assert sorted(os.listdir(tmp_path)) == sorted(["a", "b", "link", long])


@pytest.mark.parametrize("path", ["", "a\0b", 3, None, object(), "x" * 256, "no/such/directory/f", ".", "f/inside"])
def test_paths_that_are_not_files(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    Path("f").write_text("here")
    for attempt in (lambda: io.write(path, {"kind": "model"}, {}), lambda: io.read(path)):
        with pytest.raises(StorageError) as caught:
            attempt()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500
    assert os.listdir(tmp_path) == ["f"]


def test_permissions(tmp_path):
    path = tmp_path / "f"
    mask = os.umask(0o027)
    try:
        io.write(path, {"kind": "model"}, {})
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    io.write(path, {"kind": "model"}, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_a_read_only_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "f"
    io.write(path, {"kind": "model"}, {})
    path.chmod(0o444)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for a user who is not root
    with pytest.raises(StorageError, match="read-only"):
        io.write(path, {"kind": "guard"}, {})
    assert io.read(path)[0]["kind"] == "model"


def test_special_files_do_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(StorageError, match="not a file"):
            io.read(path)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()]
)
@pytest.mark.parametrize("step", ["fsync", "replace", "fdopen"])
@pytest.mark.parametrize("old", [True, False])
def test_a_failure_at_any_step_leaves_the_old_file(tmp_path, monkeypatch, step, error, old):
    path = tmp_path / "f"
    if old:
        io.write(path, {"kind": "model", "x": 1}, TENSORS)
    before = path.read_bytes() if old else None

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(StorageError if isinstance(error, OSError) else type(error)) as caught:
        io.write(path, {"kind": "model", "x": 2}, TENSORS)
    if isinstance(error, OSError):
        assert str(caught.value) == f"cannot write {path}: no space left on device."
    monkeypatch.undo()
    assert os.listdir(tmp_path) == (["f"] if old else [])
    assert not old or path.read_bytes() == before


def test_a_disk_that_fills_up_while_writing(tmp_path):
    path = tmp_path / "f"
    io.write(path, {"kind": "model", "x": 1}, TENSORS)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageError, match="cannot write"):
            io.write(path, {"kind": "model"}, {"large": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == ["f"]
    assert path.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="permission denied"):
        io.write(tmp_path / "f", {"kind": "model"}, {})


def test_a_directory_that_cannot_be_synced_is_not_an_error(tmp_path, monkeypatch):
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    io.write(tmp_path / "f", {"kind": "model"}, {})
    assert io.read(tmp_path / "f")[0]["kind"] == "model"


def test_killed_while_writing(tmp_path):
    """After SIGKILL at a random moment the file is one of the two that were being written."""
    script = """
        import os, random, signal, sys, time, torch
        from pushforward import io
        path, draw = sys.argv[1], random.Random(0)

        def write(value):
            io.write(path, {"kind": "model", "value": value}, {"x": torch.full((100_000,), value)})

        write(1.0)
        start = time.monotonic()
        write(2.0)
        took = time.monotonic() - start
        for _ in range(30):
            child = os.fork()
            while child == 0:
                write(1.0)
                write(2.0)
            time.sleep(draw.uniform(0.0, 4 * took))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            header, tensors = io.read(path)
            assert (tensors["x"] == header["value"]).all()
        print(sum(name.endswith(".tmp") for name in os.listdir(os.path.dirname(path))))
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "f")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0  # some kills did fall inside a write


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_models_are_read_bit_by_bit(tmp_path, name, dtype):
    model = randomized(MODELS[name]().to(dtype))
    pf.save(model, tmp_path / "m.safetensors")
    again = pf.load(tmp_path / "m.safetensors")
    assert type(again) is type(model)
    assert not again.training
    assert repr(again) == repr(model)
    ours, theirs = model.state_dict(), again.state_dict()
    assert list(ours) == list(theirs)
    assert {k: bits(t) for k, t in ours.items()} == {k: bits(t) for k, t in theirs.items()}
    trained = {k: p.requires_grad for k, p in model.named_parameters()}
    assert trained == {k: p.requires_grad for k, p in again.named_parameters()}
    if dtype is not torch.bfloat16:
        generator = torch.Generator().manual_seed(1)
        x = torch.rand(7, *model.shape, generator=generator, dtype=dtype)
        width = model.context_features
        context = torch.rand(7, width, generator=generator, dtype=dtype) if width else None
        assert torch.equal(model.log_prob(x, context), again.log_prob(x, context))
        one = None if context is None else context[:1]
        assert torch.equal(model.sample((), one, seed=3), again.sample((), one, seed=3))


@pytest.mark.parametrize("name", ["nsf coupling", "maf", "parts"])
def test_a_loaded_model_trains_like_the_saved_one(tmp_path, name):
    model = randomized(MODELS[name]())
    pf.save(model, tmp_path / "m")
    x = torch.rand(32, *model.shape, generator=torch.Generator().manual_seed(1))
    results = []
    for current in (model, pf.load(tmp_path / "m")):
        optimizer = torch.optim.Adam(current.parameters(), lr=1e-2)
        current.train()
        before = [p.clone() for p in current.parameters()]
        for _ in range(3):
            optimizer.zero_grad()
            current.loss(x).backward()
            optimizer.step()
        assert any(not torch.equal(a, b) for a, b in zip(before, current.parameters(), strict=True))
        results.append(current.state_dict())
    assert {k: bits(t) for k, t in results[0].items()} == {k: bits(t) for k, t in results[1].items()}


def test_tied_weights_stay_tied(tmp_path):
    model = pf.models.Flow(Scale(2), pf.distributions.Normal(2))
    pf.save(model, tmp_path / "m")
    part = next(iter(pf.load(tmp_path / "m").chain))
    assert part.twin is part.weight
    assert part.frozen.requires_grad is False


def test_one_part_used_twice(tmp_path):
    part = Scale(2)
    model = randomized(pf.models.Flow(Chain(part, part), pf.distributions.Normal(2)))
    pf.save(model, tmp_path / "m")
    x = torch.ones(1, 2)
    assert torch.equal(pf.load(tmp_path / "m").log_prob(x), model.log_prob(x))


def test_several_modules_in_one_file(tmp_path):
    pair = [randomized(MODELS["maf"](), 0), randomized(MODELS["nice"](), 1)]
    packed = [io.pack(model, f"models.{k}.") for k, model in enumerate(pair)]
    tensors = {name: t for _, part in packed for name, t in part.items()} | {"calibration": torch.arange(3.0)}
    io.write(tmp_path / "g", {"kind": "guard", "models": [d for d, _ in packed]}, tensors)
    header, tensors = io.read(tmp_path / "g", "guard")
    for k, model in enumerate(pair):
        again = io.unpack(header["models"][k], tensors, f"models.{k}.")
        x = torch.rand(5, *model.shape)
        assert torch.equal(again.log_prob(x), model.log_prob(x))


def test_loading_has_no_side_effects(tmp_path):
    pf.save(MODELS["nsf coupling"](), tmp_path / "m")
    pf.load(tmp_path / "m")
    modules, rng, state = set(sys.modules), torch.get_rng_state(), random.getstate()
    pf.load(tmp_path / "m")
    assert set(sys.modules) == modules
    assert torch.equal(torch.get_rng_state(), rng)
    assert random.getstate() == state
    assert os.listdir(tmp_path) == ["m"]


def test_the_warning_of_a_lower_bound_is_not_repeated(tmp_path):
    with pytest.warns(pf.errors.KindWarning):
        model = pf.models.Flow(Chain(pf.transforms.Sigmoid(2)), pf.distributions.Normal(2))
    pf.save(model, tmp_path / "m")
    assert pf.load(tmp_path / "m").kind is pf.Kind.LOWER_BOUND


def test_a_part_that_is_not_registered(tmp_path):
    model = pf.models.Flow(TorchTransform(torch.distributions.AffineTransform(0.0, 2.0), 2), pf.distributions.Normal(2))
    with pytest.raises(ConfigError, match="TorchTransform"):
        pf.save(model, tmp_path / "m")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("where", ["buffer", "attribute"])
def test_state_that_a_file_would_lose(tmp_path, where):
    with pytest.raises(ConfigError, match=r"chain\.transforms\.0\.lost"):
        pf.save(pf.models.Flow(Loose(2, where), pf.distributions.Normal(2)), tmp_path / "m")
    assert os.listdir(tmp_path) == []


def test_an_argument_that_does_not_describe_the_model(tmp_path):
    model = MODELS["nice"]()
    model.features = 5
    with pytest.raises(ConfigError, match="could not be loaded from a file"):
        pf.save(model, tmp_path / "m")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("thing", [nn.Linear(2, 2), Affine(2), {"a": torch.ones(1)}, None], ids=str)
def test_save_takes_models_only(tmp_path, thing):
    with pytest.raises(ConfigError, match=r"pf\.save stores models"):
        pf.save(thing, tmp_path / "m")


def test_devices(tmp_path):
    pf.save(MODELS["nice"](), tmp_path / "m")
    assert pf.load(tmp_path / "m", device=torch.device("cpu")).dtype is torch.float32
    for device in ("abacus", "cuda:99"):
        with pytest.raises(ConfigError, match=device):
            pf.load(tmp_path / "m", device=device)


def test_reading_a_file_does_not_import_the_compiler(tmp_path):
    """torch's compiler and SymPy take a second to import; constructors on the meta device need neither."""
    models = [
        pf.models.MAF(features=3), pf.models.NSF(features=3), pf.models.RealNVP(features=3), pf.models.NAF(features=2),
        pf.models.Glow(shape=(1, 8, 8), layers=1, hidden=(4,)),
    ]  # fmt: skip
    for k, model in enumerate(models):
        pf.save(model, tmp_path / str(k))
    script = """
        import sys, pushforward as pf
        for path in sys.argv[1:]:
            pf.load(path)
            print([name for name in ("sympy", "torch._dynamo") if name in sys.modules])
    """
    command = [sys.executable, "-c", textwrap.dedent(script), *(str(tmp_path / str(k)) for k in range(len(models)))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == ["[]"] * len(models)


@pytest.mark.parametrize(
    ("transform", "buffer", "values"),
    [
        (Permutation(3), "permutation", [0, 0, 1]),
        (Permutation(3), "permutation", [0, 1, 3]),
        (Permutation(3), "permutation", [-1, 0, 1]),
        (Permutation((3, 2, 2), dim=-3), "permutation", [2, 2, 2]),
        (pf.transforms.Coupling(4), "kept", [0, 0]),
        (pf.transforms.Coupling(4), "inverse_order", [0, 1, 2, 3]),
        (pf.transforms.Slice(3, 1), "dropped", [0, 1]),
        (pf.transforms.Funnel(3, 1), "kept", [9]),
        (pf.transforms.Squeeze((1, 2, 2)), "permutation", [0, 1, 2, 2**40]),
        (pf.transforms.InvertibleConv1x1((2, 2, 2)), "permutation", [1, 1]),
    ],
)  # fmt: skip
def test_an_order_of_coordinates_that_is_none_is_refused(transform, buffer, values):
    description, tensors = io.pack(transform)
    assert io.unpack(description, tensors).in_shape == transform.in_shape
    wrong = torch.tensor(values)
    assert wrong.shape == tensors[buffer].shape
    with pytest.raises(StorageError, match=r"do not hold each of 0.*the file is damaged, so get it again"):
        io.unpack(description, tensors | {buffer: wrong})


def test_a_description_without_an_argument_is_refused_in_words():
    description, tensors = io.pack(Permutation(3))
    del description["arguments"]["features"]
    with pytest.raises(StorageError, match=r"do not fit transforms.Permutation: its entries have types or sizes"):
        io.unpack(description, tensors)
