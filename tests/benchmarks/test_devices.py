"""The speed benchmark on a GPU, with a simulated device: the calls of torch, their order, and their results."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the package

from benchmarks.speed import __main__ as benchmark  # noqa: E402
from benchmarks.speed import libraries, pictures, profiling, records, report, suite  # noqa: E402
from benchmarks.speed.cases import Case, Flow  # noqa: E402
from benchmarks.speed.devices import CPU, BlockingCuda, Cpu, Cuda, device  # noqa: E402
from benchmarks.speed.graphs import captured  # noqa: E402
from benchmarks.speed.libraries import NotOffered  # noqa: E402
from benchmarks.speed.records import Readings  # noqa: E402
from benchmarks.speed.runner import Settings, environment  # noqa: E402
from benchmarks.speed.worker import Session  # noqa: E402

TINY = Flow("maf", 3, 4, 2)
CARD = "A card of 80 GB"


class Card:
    """A simulated ``torch.cuda`` with a clock that calls advance: milliseconds since the start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, count: int = 2) -> None:
        self.now, self.said, self.allocated, self.peak = 0.0, [], 1 << 20, 9 << 20
        card = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing
                self.at: float | None = None

            def record(self) -> None:
                card.said.append("record")
                self.at = card.now

            def elapsed_time(self, end: Event) -> float:
                assert card.said[-1] == "wait", "an event is read before the device is there"
                assert self.at is not None
                assert end.at is not None
                return end.at - self.at

        given = {
            "Event": Event, "synchronize": lambda index: card.said.append("wait"), "is_available": lambda: count > 0,
            "device_count": lambda: count, "get_device_name": lambda index: f"{CARD}, {index}",
            "set_device": lambda index: card.said.append(f"on {index}"), "memory_allocated": lambda index: card.allocated,
            "max_memory_allocated": lambda index: card.peak, "reset_peak_memory_stats": lambda index: card.forget(),
        }  # fmt: skip
        for name, value in given.items():
            monkeypatch.setattr(torch.cuda, name, value)
        # A build with CUDA would look for a real driver in the steps of an optimizer.
        monkeypatch.setattr(torch.accelerator, "is_available", lambda *_: False)

    def forget(self) -> None:
        self.peak = self.allocated
        self.said.append("forget")

    def call(self, *milliseconds: float, rises: int = 0):
        """A call with given durations, one after the other, and a given peak in MiB."""
        turn = iter(milliseconds)

        def run() -> str:
            self.said.append("call")
            self.now += next(turn)
            self.peak = max(self.peak, self.allocated + (rises << 20))
            return "result"

        return run


@pytest.fixture
def card(monkeypatch) -> Card:
    return Card(monkeypatch)


# Names and refusals ---------------------------------------------------------------------------------------------------


def test_devices_by_name():
    assert isinstance(device("cpu"), Cpu)
    assert device("cuda").name == "cuda:0"
    assert device("cuda:1").name == "cuda:1"
    assert type(device("cuda", library="zuko")) is Cuda
    assert type(device("cuda", library="flowjax")) is BlockingCuda
    for name in ("gpu", "cuda:", "cuda:x", "mps", "CUDA"):
        with pytest.raises(ValueError, match="use cpu, cuda or cuda:1"):
            device(name)


@pytest.mark.parametrize(
    ("count", "asked", "words"),
    [
        (0, ["--device", "cuda"], "finds no CUDA devices, so there is no cuda:0"),
        (1, ["--device", "cuda:1"], "finds 1 CUDA devices, so there is no cuda:1"),
        (1, ["--device", "cuda", "--clock", "cpu"], "--clock cpu"),
        (0, ["--device", "cuda", "--profile", "maf-d6-h128/log_prob@1"], "finds no CUDA devices"),
    ],
)
def test_absent_devices_are_refused(monkeypatch, tmp_path, count, asked, words):
    Card(monkeypatch, count)
    with pytest.raises(SystemExit, match=words) as refusal:
        benchmark.main([*asked, "--out", str(tmp_path / "r.jsonl")])
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_device_is_an_error_of_the_command_line(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--device", "tpu"])
    assert "there is no device 'tpu'" in capsys.readouterr().err


def test_variants_that_do_not_run_on_a_device_are_not_offered():
    case = Case(TINY, "log_prob", 4).plain()
    for where, names in ((Cuda(0), ("pushforward-compiled", "pushforward-plain")), (CPU, ("pushforward-graph",))):
        assert where.refused.keys() == set(names)
        for name in names:
            assert Session(name, where).answer({"do": "prepare", "case": case, "steps": 1}) == {
                "note": where.refused[name]
            }
            with pytest.raises(SystemExit, match=name):
                profiling.profile(Case(TINY, "log_prob", 4), name, 1, 0, where)


def test_processes_use_one_gpu_together(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert environment(1)["JAX_PLATFORMS"] == "cpu"
    on_gpu = environment(1, Cuda(0))
    assert "JAX_PLATFORMS" not in on_gpu
    assert on_gpu["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    monkeypatch.setenv("JAX_PLATFORMS", "mine")
    assert environment(1)["JAX_PLATFORMS"] == environment(1, Cuda(0))["JAX_PLATFORMS"] == "mine"


def test_jax_without_the_device_is_not_offered(monkeypatch):
    config = SimpleNamespace(update=lambda name, value: None)
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(config=config, devices=lambda kind: ["the first"]))
    Cuda(0).choose_in_jax()
    with pytest.raises(NotOffered, match="finds no cuda:1"):
        Cuda(1).choose_in_jax()


# Time and memory ------------------------------------------------------------------------------------------------------


def test_calls_are_timed_between_events_with_one_wait(card):
    assert Cuda(1).seconds(card.call(2, 4, 8), 3) == pytest.approx([0.002, 0.004, 0.008])
    assert card.said == ["record", "call", "record"] * 3 + ["wait"]


def test_one_call_is_timed_until_its_end(card):
    seconds, result = Cuda(0).timed(card.call(5))
    assert seconds > 0
    assert result == "result"
    assert card.said == ["wait", "call", "wait"]


def test_a_library_that_waits_itself_is_timed_by_wall_time(card):
    where = BlockingCuda(0)
    where.begin()
    assert where.timed(card.call(5))[1] == "result"
    assert len(where.seconds(card.call(5, 5), 2)) == 2
    assert card.said == ["call"] * 3
    with pytest.raises(NotOffered, match="JAX"):
        where.memory(card.call(5))


def test_memory_is_the_growth_during_a_call(card):
    found = Cuda(0).memory(card.call(1, rises=5))
    assert found == {"above": 5, "process": 6}
    assert card.said == ["wait", "forget", "call", "wait"]
    assert Cuda(0).memory(card.call(1)) == {"above": 0, "process": 1}


def test_the_clock_of_a_cpu(monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr("benchmarks.speed.devices.time.process_time", lambda: next(ticks))
    assert Cpu("cpu").seconds(lambda: None, 3) == [1, 1, 1]
    assert Cpu().timed(lambda: "result")[1] == "result"


def test_a_session_uses_its_device(card, monkeypatch):
    where = Cuda(0)
    where.begin()
    monkeypatch.setattr(where, "name", "cpu")  # where the tensors of this test can be
    session = Session("floor", where)
    assert session.prepare(Case(TINY, "log_prob", 5).plain(), steps=2)["first"] > 0
    card.said.clear()
    assert session.time(2) == {"seconds": [0, 0]}
    assert card.said == ["record"] * 4 + ["wait"]
    assert session.memory()["process"] == 1


@pytest.mark.parametrize("library", ["pushforward", "floor", "zuko", "nflows", "normflows", "torchflows"])
@pytest.mark.filterwarnings("ignore")  # of the peers
def test_modules_and_batches_are_put_on_the_device(library):
    if reason := libraries.missing(library):
        pytest.skip(reason)
    where = Cpu()
    where.name = "meta"  # tensors without numbers: a step that met one of another device would raise
    built = libraries.adapter(library).build(TINY, where)
    assert {tensor.device.type for tensor in built.module.parameters()} == {"meta"}
    x = built._rows(5, 1)[0]
    built.module.train()
    assert built.loss(x).device.type == "meta"
    if library == "floor":
        assert built.draw(5).device.type == "meta"


# Graphs ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def graphs(monkeypatch) -> list[str]:
    """Records the calls of ``torch.cuda`` for graphs, and replays."""
    said: list[str] = []

    class Stream:
        def wait_stream(self, other: object) -> None:
            said.append("wait")

    class Graph:
        def register_generator_state(self, generator: torch.Generator) -> None:
            said.append("generator")

        def replay(self) -> None:
            said.append("replay")

    @contextlib.contextmanager
    def inside(name: str):
        said.append(name)
        yield
        said.append(f"end of {name}")

    given = {"Stream": Stream, "CUDAGraph": Graph, "current_stream": Stream,
             "stream": lambda _: inside("stream"), "graph": lambda _: inside("graph")}  # fmt: skip
    for name, value in given.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return said


def test_a_call_is_captured_after_a_warm_up_on_another_stream(graphs):
    replay = captured(lambda: graphs.append("call") or torch.ones(3), [torch.Generator()])
    assert graphs == ["wait", "stream", "call", "call", "call", "end of stream", "wait", "generator", "graph", "call",
                      "end of graph"]  # fmt: skip
    graphs.clear()
    assert replay() is replay()
    assert graphs == ["replay", "replay"]


def test_calls_that_cannot_be_captured_are_not_offered(graphs):
    def call() -> torch.Tensor:
        if "graph" in graphs:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        return torch.ones(3)

    with pytest.raises(NotOffered, match="no CUDA graph: operation not permitted when stream is capturing"):
        captured(call)


@pytest.mark.parametrize("work", ["log_prob", "sample", "train_step"])
def test_the_variant_captures_every_work(graphs, monkeypatch, work):
    monkeypatch.setenv("PUSHFORWARD_BENCH_GRAPH", "1")
    built = libraries.adapter("pushforward").build(TINY)
    built.train(2)
    assert graphs == []
    assert built.optimizer.defaults["capturable"]
    assert built.optimizer.defaults["fused"]
    fed: list[torch.Tensor] = []
    monkeypatch.setattr(type(built), "loss", lambda self, x: fed.append(x) or self.module.loss(x))
    call = built.work(work, 5)
    assert graphs[-1] == "end of graph"
    assert ("generator" in graphs) == (work != "train_step")
    shape = call().shape
    assert shape == {"log_prob": (5,), "sample": (5, 3), "train_step": ()}[work]
    assert graphs[-1] == "replay"
    if work == "train_step":  # one place, into which the batches go in turn
        assert len({x.data_ptr() for x in fed}) == 1
        first = fed[0].clone()
        call()
        assert not torch.equal(first, fed[0])


def test_the_memory_of_a_graph_is_not_measured(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(suite, "Worker", lambda name, settings: asked.append(name) or SimpleNamespace(
        ask=lambda *_, **__: {"note": "not now"}, close=lambda: None))  # fmt: skip
    Card(monkeypatch)
    settings = Settings(threads=1, device="cuda")
    names = ["pushforward", "pushforward-graph", "pushforward-plain", "floor"]
    run = suite.Suite(
        settings, Readings(tmp_path / "r.jsonl", settings, names), names, ["maf-d63-h512/train_step@8192"]
    )
    run.memory()
    assert asked == ["pushforward", "floor"]


# Records and what is made of them -------------------------------------------------------------------------------------


def kept(file: Path, where: str, seconds: float) -> None:
    settings = Settings(threads=1, device=where)
    reading = {"seconds": [seconds], "calls": 1, "first": seconds, "parameters": 1}
    variant = "pushforward-plain" if where == "cpu" else "pushforward-graph"
    Readings(file, settings, ["zuko"]).keep(
        "time", "nsfc-d63-h128/log_prob@512", {"pushforward": reading, variant: reading, "zuko": reading}
    )


def test_records_of_devices_are_separate(card, tmp_path):
    file = tmp_path / "r.jsonl"
    kept(file, "cpu", 1.0)
    done = ("time", "nsfc-d63-h128/log_prob@512", ["pushforward", "zuko"])
    on_cpu, on_gpu = (Settings(threads=1, device=name) for name in ("cpu", "cuda"))
    assert Readings(file, on_cpu, []).done(*done)
    assert not Readings(file, on_gpu, []).done(*done)
    kept(file, "cuda", 0.5)
    assert Readings(file, on_gpu, []).done(*done)
    assert not Readings(file, replace(on_gpu, device="cuda:1"), []).done(*done)  # another card
    run, made = map(json.loads, file.read_text().splitlines()[2:])
    assert run["device"] == made["device"] == f"{CARD}, 0"
    assert run["tf32"].keys() == {"matrix products", "convolutions"}


def test_records_without_a_device_are_of_a_cpu(card):
    file = ROOT / "benchmarks/results/speed.jsonl"
    old = list(records.read(file))
    assert old
    assert {records.device_of(record) for record in old} == {"cpu"}
    made = next(record for record in old if record["part"] == "time")
    asked = Settings(threads=made["threads"], rounds=made["rounds"], steps=made["steps"], clock=made["clock"])
    assert Readings(file, asked, []).done("time", made["case"], made["readings"])
    assert not Readings(file, replace(asked, device="cuda"), []).done("time", made["case"], made["readings"])


def test_the_report_names_the_device_its_clock_and_its_rounding(card, tmp_path, monkeypatch):
    file = tmp_path / "r.jsonl"
    kept(file, "cpu", 1.0)
    alone = report.report(list(records.read(file)))
    assert CARD not in alone
    assert "TF32" not in alone
    assert "# cpu" not in alone
    assert "wall time" in alone
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    kept(file, "cuda", 0.5)
    both = report.report(list(records.read(file)))
    cpu, gpu = both.split(f"# {CARD}, 0\n")
    assert "# cpu\n" in cpu
    assert "1,000" in cpu
    assert "pushforward-graph" not in cpu
    assert "| 500 |" in gpu
    assert "pushforward-plain |" not in gpu
    assert f"{CARD}, 0 (CUDA" in gpu
    assert "CUDA events" in gpu
    assert "with TF32 in convolutions" in gpu


def test_pictures_of_devices_are_separate(card, tmp_path):
    file = tmp_path / "r.jsonl"
    kept(file, "cuda", 0.5)
    drawn = pictures.draw(list(records.read(file)), tmp_path / "r.png", None, f"{CARD}, 0")
    assert drawn == [tmp_path / "r-a-card-of-80-gb-0.png"]
    assert drawn[0].stat().st_size > 1000


def test_a_run_on_a_gpu_passes_the_device_on(card, tmp_path, monkeypatch, capsys):
    seen = []

    def interleave(workers, entries):
        seen.append((workers.settings.device, list(entries)))
        return {name: {"seconds": [1e-3], "calls": 1, "first": 1e-3, "parameters": 1} for name in entries}

    monkeypatch.setattr(suite, "interleave", interleave)
    out = tmp_path / "r.jsonl"
    benchmark.main(["time", "--device", "cuda:1", "--cases", "nsfc-d6-h128/log_prob@1", "--out", str(out), "--libraries",
                    "pushforward", "pushforward-plain", "pushforward-graph", "floor"])  # fmt: skip
    assert seen == [("cuda:1", ["pushforward", "pushforward-graph", "floor"])]
    assert "pushforward-plain: pf.compile_scorer and the compiled kernels are for the CPU." in capsys.readouterr().out
    assert f"# {CARD}, 1" in out.with_suffix(".md").read_text()


# Profiles -------------------------------------------------------------------------------------------------------------


def test_a_profile_counts_the_time_of_kernels(card):
    rows = [
        SimpleNamespace(self_device_time_total=7.0, self_cpu_time_total=1.0, device_type=kind)
        for kind in (DeviceType.CPU, DeviceType.CUDA)
    ]
    assert [Cuda(0).profiled(row) for row in rows] == [0, 7]
    assert [CPU.profiled(row) for row in rows] == [1, 1]
    assert torch.profiler.ProfilerActivity.CUDA in Cuda(0).activities()
    assert CPU.activities() == [torch.profiler.ProfilerActivity.CPU]


def test_a_profile_on_the_cpu_counts_cpu_time(monkeypatch):
    monkeypatch.setattr(profiling, "SECONDS", 0.01)
    threads = torch.get_num_threads()
    try:
        made = profiling.profile(Case(TINY, "log_prob", 5), "floor", 1, 0)
    finally:
        torch.set_num_threads(threads)
    assert "torch, cpu, 1 threads" in made
    assert "aten::" in made
