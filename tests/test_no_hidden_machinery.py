"""Building, scoring, sampling, training, saving and loading start no process, compile nothing and change no setting."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
    import sys
    import torch  # a build with CUDA looks for its libraries in another process

    started = []
    EVENTS = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "pty.spawn")
    sys.addaudithook(lambda event, arguments: started.append((event, str(arguments)[:200])) if event in EVENTS else None)

    import decimal, gc, locale, signal, tempfile
    from pathlib import Path
    import pushforward as pf
    from pushforward.errors import PushforwardError
    sys.path.insert(0, "tests")  # a package of that name may be installed
    from contract.cases import MODELS
    from contract.tools import context_of, data_of

    torch.compile = lambda *a, **k: started.append(("torch.compile", ""))
    torch.manual_seed(0)

    def settings():
        return (
            torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_default_dtype(), torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(), torch.get_default_device(),
            torch.backends.mkldnn.enabled,
            gc.isenabled(), gc.get_threshold(),
            signal.getsignal(signal.SIGINT), sys.getrecursionlimit(), locale.setlocale(locale.LC_ALL), decimal.getcontext().prec,
        )

    done = set()
    for case in MODELS:
        name = type(model := case.make()).__name__
        if (name, case.kind) in done:
            continue
        done.add((name, case.kind))
        before = settings()
        model = case.make().eval()
        x, context = data_of(case, model)[:4].float(), context_of(model)
        context = None if context is None else context[:4].float()
        with torch.no_grad():
            for rows in (1, 4):
                model.evaluate(x[:rows], None if context is None else context[:rows])
        try:
            model.sample(2, seed=0, **({} if context is None else {"context": context[:2]}))
        except PushforwardError:  # a model that cannot sample says so
            pass
        assert settings() == before, name
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            pf.save(model, path)
            pf.load(path)
        state = torch.random.get_rng_state()
        try:
            pf.fit(model, x if context is None else (x, context), max_steps=2, progress="silent")
        except PushforwardError as error:  # some are fitted by a function of their own
            print(name, type(error).__name__, error)
        assert settings() == before, name
        assert torch.equal(torch.random.get_rng_state(), state), name
    print(len(done), "models")
    model = pf.models.MAF(3)
    scorer = pf.compile_scorer(model)
    scorer(torch.zeros(1, 3))
    guard = pf.Guard(0.1, density=True, n_estimators=1, max_steps=2, random_state=0).fit(torch.randn(64, 3).numpy()).compile()
    guard.predict(torch.zeros(1, 3).numpy())
    assert not started, started
"""


def test_nothing_starts_a_process_a_compiler_or_changes_a_setting():
    """Every model class of the contract suite, then a compiled scorer and a guard.

    With ``OMP_NUM_THREADS``; without it scikit-learn starts ``lscpu`` for the number of cores.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SCRIPT)],
        capture_output=True, text=True, timeout=600, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
