"""
The paradox of likelihoods, and its cure
========================================

A flow that was trained on images of clothes finds handwritten digits likelier than new clothes (Nalisnick et al. 2019). A guard combines its flow with a compressor, distances from the training images and a network that recognizes turned images, and detects the digits.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import pushforward as pf
from pushforward.data import as_images, load_image_sample
from pushforward.detection import auroc

clothes = load_image_sample("fashion-mnist", "train")[:2000]
new, digits = load_image_sample("fashion-mnist")[:300], load_image_sample("mnist")[:300]

# %%
# A flow alone. An area under the ROC curve (AUROC) of 0.5 is chance; below 0.5 the digits are the likelier images.
torch.manual_seed(0)
flow = pf.models.Glow(shape=(1, 28, 28), layers=2, hidden=(24, 24))
pf.fit(flow, as_images(clothes), max_steps=150, learning_rate=2e-3, batch_size=32, seed=0, progress="silent")
log_p = {name: flow.evaluate(as_images(x)).value.detach().numpy() for name, x in (("clothes", new), ("digits", digits))}
print(f"AUROC of -log p: {auroc(-log_p['clothes'], -log_p['digits']):.2f}")

# %%
# The guard, with a promise: at most 5 % of new clothes raise an alarm.
guard = pf.Guard(alpha=0.05, max_steps=150, random_state=0).fit(clothes)
scores = {"new clothes": guard.anomaly_score(new), "digits": guard.anomaly_score(digits)}
print(f"AUROC of the guard: {auroc(*scores.values()):.2f}")
print(
    f"alarms: {np.mean(guard.predict(new) == -1):.1%} of clothes, {np.mean(guard.predict(digits) == -1):.1%} of digits"
)

figure, (pictures, left, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained", width_ratios=(1, 2, 2))
pf.plot.images(np.concatenate([new[:16], digits[:16]]), ax=pictures, columns=4, cmap="gray_r")
pictures.set_title("new clothes, digits")
pf.plot.scores(log_p, ax=left, name="log p(image), nats")
left.set_title("the flow: digits are likelier")
pf.plot.scores(scores, -guard.offset_, ax=right)
right.set_title("the guard")
plt.show()
