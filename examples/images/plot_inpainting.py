"""
Filling in hidden pixels
========================

The lower half of each image is hidden. Starting from noise, gradient ascent on the log-density finds pixels that fit the visible half
(Dinh et al. 2014, sec. 5.2). A small flow that was trained for seconds restores the kind of garment and not its details.
"""

import matplotlib.pyplot as plt
import torch

import pushforward as pf
from pushforward.data import as_images, load_image_sample
from pushforward.models.manipulation import inpaint

clothes = as_images(load_image_sample("fashion-mnist", "train"))
small = torch.nn.functional.avg_pool2d(clothes.float(), 2)[:, :, 1:13, 1:13].round().to(torch.uint8)  # 12 x 12
train, new = small[:4500], small[4500:4510]
torch.manual_seed(0)
model = pf.models.ImageNICE(shape=(1, 12, 12), hidden=(256, 256))
pf.fit(model, train, validation=0.05, max_steps=400, batch_size=128, learning_rate=2e-3, seed=0, progress="silent")

# %%
# ``known`` says which pixels are given; they do not change.
known = torch.ones(1, 12, 12, dtype=torch.bool)
known[:, 6:] = False
filled = inpaint(model, new, known, steps=300, max_gradient=20.0, seed=0)
start = torch.where(known, new, torch.full_like(new, 128))
mean = torch.where(known, new.float(), train.float().mean(0))
for name, images in (("mean image", mean), ("inpainted", filled.float())):
    print(f"{name}: root mean square error {(images - new).square()[:, :, 6:].mean().sqrt():.0f} of 255")

figure, ax = plt.subplots(figsize=(9, 3.4), layout="constrained")
pf.plot.images(torch.cat([start, filled.to(torch.uint8), new])[:, 0], ax=ax, columns=10)
ax.set_yticks([6, 19, 32], ["lower half hidden", "filled in", "the images"])
ax.tick_params(length=0)
plt.show()
