"""
Temperature of Glow
===================

Samples of a flow of images from noise that is multiplied by a temperature: with 0 all samples are the same image, with 1 they are samples
of the model. Values in between are calmer pictures. The model is small and trained for seconds, and so are its pictures.
"""

import matplotlib.pyplot as plt
import torch

import pushforward as pf
from pushforward.data import as_images, load_image_sample
from pushforward.models.manipulation import sample_at_temperature

clothes = as_images(load_image_sample("fashion-mnist", "train"))
small = torch.nn.functional.avg_pool2d(clothes.float(), 2)[:, :, 1:13, 1:13].round().to(torch.uint8)  # 12 x 12

# %%
# ``bits_per_dim`` exists because the pixels are integers; it is an upper bound.
torch.manual_seed(0)
model = pf.models.Glow(shape=(1, 12, 12), layers=4, hidden=(32, 32))
pf.fit(model, small, validation=0.05, max_steps=500, batch_size=64, learning_rate=3e-3, seed=0, progress="silent")
print(f"{model.evaluate(small[:300]).bits_per_dim().mean():.2f} bits/dim")

figure, axes = plt.subplots(1, 5, figsize=(13, 3), layout="constrained")
pf.plot.images(small[:16, 0], ax=axes[0])
axes[0].set_title("training images")
for ax, temperature in zip(axes[1:], (0.3, 0.6, 0.8, 1.0), strict=True):
    drawn = sample_at_temperature(model, 16, temperature, seed=0)
    pf.plot.images(drawn[:, 0].clamp(0, 255).to(torch.uint8), ax=ax)
    ax.set_title(f"temperature {temperature:g}")
plt.show()
