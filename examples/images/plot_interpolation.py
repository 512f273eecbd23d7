"""
Between two images
==================

A flow maps each image to noise and back without loss. The straight line between two images is a double exposure; the line between their
noises, decoded, is made of images that the model finds more likely.
"""

import matplotlib.pyplot as plt
import torch

import pushforward as pf
from pushforward.data import as_images, load_image_sample
from pushforward.models.manipulation import interpolate

clothes = as_images(load_image_sample("fashion-mnist", "train"))
small = torch.nn.functional.avg_pool2d(clothes.float(), 2)[:, :, 1:13, 1:13].round().to(torch.uint8)  # 12 x 12
torch.manual_seed(0)
model = pf.models.Glow(shape=(1, 12, 12), layers=4, hidden=(32, 32))
pf.fit(model, small, validation=0.05, max_steps=500, batch_size=64, learning_rate=3e-3, seed=0, progress="silent")

# %%
# Encoding is exact: decoding gives the pixels back.
pairs = [(1, 3), (0, 9), (5, 6)]
same = model.decode(model.encode(small[:50])).round()
print("pixels that come back:", f"{(same == small[:50]).float().mean():.2%}")

# %%
# Upper rows: between the noises. Lower rows: between the pixels. The numbers are mean bits per pixel of the images between.
t = torch.linspace(0, 1, 9)[:, None, None, None]
figure, axes = plt.subplots(3, 1, figsize=(9, 6.6), layout="constrained")
for ax, (a, b) in zip(axes, pairs, strict=True):
    by_noise = interpolate(model, small[a], small[b], steps=9).clamp(0, 255).round()
    by_pixel = ((1 - t) * small[a] + t * small[b]).round()
    bits = [model.evaluate(x[1:-1]).bits_per_dim().mean().item() for x in (by_noise, by_pixel)]
    pf.plot.images(torch.cat([by_noise, by_pixel])[:, 0].to(torch.uint8), ax=ax, columns=9)
    ax.set_title(f"noises: {bits[0]:.2f} bits/dim, pixels: {bits[1]:.2f} bits/dim")
plt.show()
