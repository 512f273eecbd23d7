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
# The call from a shell: ``curl $URL/score -H 'content-type: application/json' -d '{"rows": [{"flow": 5.0, "pressure": 14.0}]}'``.
# The call from JavaScript, in a page or in Node:
#
# .. code-block:: javascript
#
#     const answer = await fetch(url + "score", {method: "POST", headers: {"content-type": "application/json"},
#         body: JSON.stringify({rows: [{flow: 5.0, pressure: 14.0}], reasons: true})});
#     console.log((await answer.json()).rows[0].p_value);
new = [{"flow": f, "pressure": p} for f, p in [(5.0, 10.1), (5.0, 14.0), (9.5, 19.0), (6.0, 12.1)]]
body, header = json.dumps({"rows": new, "reasons": True}).encode(), {"content-type": "application/json"}
if importlib.util.find_spec("uvicorn") is None:
    print("the service is not installed: pip install 'pushforward[serve]'")
else:
    options = ["serve", "pump.safetensors", "--port", "0", "--durability", "none"]
    command = [sys.executable, "-m", "pushforward", *options]
    with subprocess.Popen(command, cwd=folder.name, stdout=subprocess.PIPE, text=True) as server:
        url, times = server.stdout.readline().split()[-1], []  # it prints its address
        for _ in range(200):
            start = time.perf_counter()
            with urllib.request.urlopen(urllib.request.Request(url + "score", body, header)) as reply:
                answer = json.load(reply)["rows"]
            times.append(1e3 * (time.perf_counter() - start))
        server.terminate()
    print(answer[1]["p_value"], answer[1]["reasons"], f"- median of 200 requests: {np.median(times):.1f} ms")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    left.plot(rows["flow"], rows["pressure"], ".", markersize=2, color="#999999")
    for row, found in zip(new, answer, strict=True):
        left.plot(*row.values(), "o", color="#D55E00" if found["alarm"] else "#0072B2")
        left.text(row["flow"] + 0.3, row["pressure"] - 0.2, f"p = {found['p_value']:.3f}")
    left.set(xlabel="flow, l/s", ylabel="pressure, bar", xlim=(0, 12), title="answers of the service (orange: alarm)")
    right.hist(np.clip(times, 0, np.quantile(times, 0.98)), 40, color="#0072B2")
    right.set(xlabel="milliseconds from request to answer", ylabel="requests")
    plt.show()
folder.cleanup()
