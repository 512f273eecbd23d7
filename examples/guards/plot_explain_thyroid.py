"""
Why this patient?
=================

Blood tests of patients. The guard learns from those without an underactive thyroid, and raises alarms for most of those with one. The
reasons say which value is unusual *given the others*; the mean over all patients is what the disease does.
"""

import matplotlib.pyplot as plt
import numpy as np

import pushforward as pf

sample = pf.data.load_sample("thyroid")
order = np.random.default_rng(0).permutation(np.flatnonzero(sample.labels == 0))
train, new = sample.table.take(order[:2500]), sample.table.take(order[2500:])
ill = sample.table.take(np.flatnonzero(sample.labels == 1))
guard = pf.Guard(alpha=0.05, random_state=0).fit(train)
print(
    f"alarms: {np.mean(guard.predict(ill) == -1):.0%} of the ill, {np.mean(guard.predict(new) == -1):.1%} of the others"
)

# %%
# One patient, in sentences; then in a picture beside the mean over all.
explanation = guard.explain(ill)
worst = int(np.argmax(guard.anomaly_score(ill)))
for sentence in explanation.sentences(worst):
    print(sentence)
figure, (left, right) = plt.subplots(1, 2, figsize=(13, 3.8), layout="constrained", width_ratios=(3, 2))
pf.plot.explanation(explanation, worst, ax=left)
left.set_title(f"patient {worst}")
names = list(explanation.names)
means = {"ill": explanation.nats.mean(0), "healthy": guard.explain(new.slice(0, 93)).nats.mean(0)}
place = np.arange(len(names))
for k, (name, color) in enumerate((("ill", "#D55E00"), ("healthy", "#0072B2"))):
    right.barh(place + 0.4 * k - 0.2, means[name], 0.38, color=color, label=f"93 {name} patients")
right.set_yticks(place, names)
right.set(xlabel="mean excess, nats", title="all patients")
right.legend(frameon=False)
right.invert_yaxis()
plt.show()
