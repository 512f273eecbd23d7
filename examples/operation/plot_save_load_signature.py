"""
Files that can be trusted
=========================

A guard is one file without pickle: reading it runs no code, and a file that was damaged does not load. A signature also tells a file of
yours from a good one that somebody else put in its place.
"""

import contextlib
import pathlib
import tempfile

import matplotlib.pyplot as plt
import numpy as np

import pushforward as pf
from pushforward.errors import PushforwardError

rng = np.random.default_rng(0)
x = rng.normal(size=(400, 3))
guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(x)
folder = tempfile.TemporaryDirectory()
path, key = pathlib.Path(folder.name, "guard.safetensors"), pathlib.Path(folder.name, "key.pem")
guard.save(path)
public = pf.io.new_key(key)  # the private key stays with you
pf.io.sign(path, key)
print("same p-values:", np.array_equal(pf.Guard.load(path, public_key=public).p_value(x), guard.p_value(x)))

# %%
# The file is changed, and read with and without the public key: 200 times one bit, 200 times cut short, and another guard in its place.
content, other = path.read_bytes(), pathlib.Path(folder.name, "other.safetensors")
pf.Guard(alpha=0.5, effort="fast", random_state=0).fit(3 * x).save(other)


def flipped(place):
    return content[:place] + bytes([content[place] ^ (1 << rng.integers(8))]) + content[place + 1 :]


places = rng.integers(0, len(content), 200)
changes = {"the file itself": [content], "one bit flipped": list(map(flipped, places))}
changes |= {"cut short": [content[:place] for place in places], "a guard of others": [other.read_bytes()]}
shares = np.zeros((len(changes), 2))
for row, files in enumerate(changes.values()):
    for column, public_key in enumerate((None, public)):
        for file in files:
            path.write_bytes(file)
            with contextlib.suppress(PushforwardError):  # what a file that does not load raises
                pf.Guard.load(path, public_key=public_key)
                shares[row, column] += 1 / len(files)
folder.cleanup()

figure, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
columns = ["no key", "with the public key"]
pf.plot.heat_map(shares, list(changes), columns, ax=ax, name="fraction that loads", form=".0%", cmap="cividis")
plt.show()
