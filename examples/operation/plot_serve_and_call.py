"""
A service, and who calls it
===========================

``pushforward serve`` puts a guard behind HTTP. Here it is started on a free port, called, and stopped. Each
answer has the p-value, the alarm, and the columns that made a row unlikely. It needs ``pip install 'pushforward[serve]'``.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

import matplotlib.pyplot as plt
import numpy as np

import pushforward as pf

rng, folder = np.random.default_rng(0), tempfile.TemporaryDirectory()
flow = rng.normal(5, 1, 1000)
rows = {"flow": flow, "pressure": 2 * flow + 0.2 * rng.normal(size=1000)}
pf.Guard(alpha=0.01, random_state=0).fit(rows).save(pathlib.Path(folder.name, "pump.safetensors"))

# %%
# From a shell: ``curl $URL/score -H 'content-type: application/json' -d '{"rows": [{"flow": 5, "pressure": 14}]}'``. In JavaScript:
#
# .. code-block:: javascript
#
#     const answer = await fetch(url + "score", {method: "POST", headers: {"content-type": "application/json"},
#         body: JSON.stringify({rows: [{flow: 5.0, pressure: 14.0}], reasons: true})});
#     console.log((await answer.json()).rows[0].p_value);
new = [{"flow": f, "pressure": p} for f, p in [(5.0, 10.1), (5.0, 14.0), (9.5, 19.0), (6.0, 12.1)]]
body = json.dumps({"rows": new, "reasons": True}).encode()
if importlib.util.find_spec("uvicorn") is None:
    print("the service is not installed: pip install 'pushforward[serve]'")
else:
    command = [sys.executable, "-m", "pushforward", "serve", "pump.safetensors", "--port", "0", "--durability", "none"]
    with subprocess.Popen(command, cwd=folder.name, stdout=subprocess.PIPE, text=True) as server:
        url = server.stdout.readline().split()[-1]  # it prints its address
        request = urllib.request.Request(url + "score", body, {"content-type": "application/json"})
        start = time.perf_counter()
        for _ in range(200):
            with urllib.request.urlopen(request) as reply:
                answer = json.load(reply)["rows"]
        milliseconds = 1e3 * (time.perf_counter() - start) / 200
        server.terminate()
    print(answer[1]["p_value"], answer[1]["reasons"], f"- {milliseconds:.1f} ms a request, mean of 200, one at a time")
    figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    ax.plot(rows["flow"], rows["pressure"], ".", markersize=2, color="#999999")
    for row, found in zip(new, answer, strict=True):
        ax.plot(*row.values(), "o", color="#D55E00" if found["alarm"] else "#0072B2")
        ax.text(row["flow"] + 0.2, row["pressure"] - 0.2, f"p = {found['p_value']:.3f}")
    ax.set(xlabel="flow, l/s", ylabel="pressure, bar", xlim=(0, 12), title="training rows, and answers (orange: alarm)")
    plt.show()
folder.cleanup()
