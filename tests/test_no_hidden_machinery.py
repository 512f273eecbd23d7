"""Building, scoring, training and sampling start no process and compile nothing (docs/architecture.md)."""

from __future__ import annotations

import subprocess
import sys
import textwrap

SCRIPT = """
    import sys

    started = []
    EVENTS = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "pty.spawn")
    sys.addaudithook(lambda event, arguments: started.append((event, str(arguments)[:200])) if event in EVENTS else None)

    import tempfile
    from pathlib import Path
    import torch
    import pushforward as pf

    torch.compile = lambda *a, **k: started.append(("torch.compile", ""))
    torch.manual_seed(0)
    models = pf.models
    vectors = [
        models.NICE(3), models.RealNVP(3), models.MAF(3), models.IAF(3), models.NSF(3), models.NSF(3, layer="autoregressive"),
        models.NAF(3), models.BNAF(3), models.UMNN(3), models.SOS(3), models.BernsteinFlow(3), models.GaussianizationFlow(3),
        models.IResNet(3), models.ResidualFlow(3), models.CNF(3), models.InFlow(3), models.VAE(3, 2), models.AutoEncoder(3, 2),
    ]
    images = [models.Glow((1, 8, 8), layers=1, hidden=(8, 8)), models.ImageRealNVP((1, 8, 8), layers=2, hidden=(8,)),
              models.ImageNSF((1, 8, 8), layers=1, hidden=(8,)), models.PixelCNN((1, 4, 4), filters=4, layers=1)]
    x = torch.randn(64, 3)
    for model in vectors[:6]:
        model.eval()
        with torch.no_grad():
            model.log_prob(x[:1]), model.log_prob(x)
        pf.fit(model, x, max_steps=2, progress="silent")
        model.sample(2, seed=0)
    for model in images[:2]:
        model.evaluate(torch.zeros(2, 1, 8, 8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        pf.save(vectors[2], path)
        scorer = pf.compile_scorer(pf.load(path))
    scorer(x[:1])
    guard = pf.Guard(0.1, density=True, n_estimators=1, max_steps=2, random_state=0).fit(x.numpy()).compile()
    guard.predict(x[:1].numpy())
    assert not started, started
"""


def test_nothing_starts_a_process_or_a_compiler():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SCRIPT)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
