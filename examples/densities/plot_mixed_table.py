"""
A density of a mixed table
==========================

Blood tests of 3,772 patients, and a column that we add: a category. ``Guard(density=True)`` fits flows
to the whole row, so new rows can be drawn; they have the types, the steps and the dependence of the table.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import pushforward as pf

sample = pf.data.load_sample("thyroid")
table = sample.table.to_pandas()[["age", "TSH", "TT4", "FTI"]]
table["clinic"] = np.where(table["age"] > 55, "north", np.random.default_rng(0).choice(["north", "south"], len(table)))

# %%
# ``max_steps`` keeps this example short.
guard = pf.Guard(alpha=0.05, density=True, n_estimators=1, max_steps=1000, random_state=0).fit(table)
drawn = guard.sample(1500, random_state=0).to_pandas()
print(drawn.head())
print("mean log-density of ten rows:", guard.log_prob(table[:10]).mean().round(2))

# %%
# Left: two columns on logarithmic axes. Right: how the category depends on age, in the data and in the samples.
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
positive = drawn[(drawn["TSH"] > 0) & (drawn["FTI"] > 0)]
for rows, color, name in ((table[:1500], "#0072B2", "patients"), (positive, "#D55E00", "samples")):
    left.loglog(rows["TSH"], rows["FTI"], ".", color=color, markersize=3, alpha=0.5, label=name)
left.set(xlabel="TSH, mU/l", ylabel="free thyroxine index", xlim=(5e-3, 1e3))
left.legend(frameon=False, loc="lower left", markerscale=3)
edges = np.arange(0, 101, 10)
for rows, color, name in ((table, "#0072B2", "patients"), (drawn, "#D55E00", "samples")):
    share = (rows["clinic"] == "north").groupby(pd.cut(rows["age"], edges), observed=False).mean()
    right.plot(edges[:-1] + 5, share, "o-", color=color, label=name)
right.set(xlabel="age, years", ylabel="fraction from the clinic north", ylim=(0, 1.05))
right.legend(frameon=False, loc="lower right")
plt.show()
