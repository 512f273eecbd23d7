"""
Writing a score
===============

A score is one number for each row, higher is more anomalous. Write two methods, and it can be saved, calibrated and compared with
others. This one sums the excess of each column over its interquartile range, as a box plot does.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import pushforward as pf
from pushforward.detection import ConformalCalibrator, auroc
from pushforward.detection.scores import Score
from pushforward.registry import register


@register("scores")
class BoxPlot(Score):
    """Sum over columns of the distance to the box, in heights of the box."""

    def __init__(self) -> None:
        super().__init__()
        self.declare(low=1, high=1)  # float64 buffers with one dimension, which a file stores

    def _learn(self, reference):
        self.low, self.high = torch.quantile(reference.double(), torch.tensor([0.25, 0.75]).double(), dim=0)

    def _score(self, x):
        outside = torch.maximum(self.low - x, x - self.high).clamp(min=0) / (self.high - self.low)
        return outside.sum(1)


# %%
# Fit it on blood tests of healthy patients, calibrate it on others, and score new ones.
sample = pf.data.load_sample("thyroid")
rows = torch.tensor(sample.table.to_pandas().to_numpy())
healthy = rows[sample.labels == 0][torch.randperm(3679, generator=torch.Generator().manual_seed(0))]
train, calibration, new, ill = healthy[:1500], healthy[1500:2500], healthy[2500:], rows[sample.labels == 1]
score = BoxPlot().fit(train)
calibrator = ConformalCalibrator(score(calibration).numpy())
own = {"new healthy": score(new).numpy(), "ill": score(ill).numpy()}
threshold = calibrator.score_threshold(0.05)
print(f"box plot: AUROC {auroc(*own.values()):.3f}, false alarms {np.mean(own['new healthy'] >= threshold):.1%}")

# %%
# Beside it the score of the guard, from the same rows.
guard = pf.Guard(alpha=0.05, calibration=1000, random_state=0).fit(healthy[:2500].numpy())
other = {"new healthy": guard.anomaly_score(new.numpy()), "ill": guard.anomaly_score(ill.numpy())}
print(f"guard:    AUROC {auroc(*other.values()):.3f}")
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
pf.plot.scores(own, threshold, ax=left, name="distance to the boxes")
left.set_title("the new score")
pf.plot.scores(other, -guard.offset_, ax=right)
right.set_title("the score of the guard")
plt.show()
