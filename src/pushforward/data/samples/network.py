"""A small trained network that comes with the package: it classifies the images of clothes of Fashion-MNIST."""

from __future__ import annotations

from importlib import resources

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CLOTHES", "UNSEEN", "ClothesNetwork", "load_clothes_network"]

CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
"""The names of the classes."""
UNSEEN = 2000
"""The network has not seen the first 2,000 training images, so that they can calibrate a guard."""


class ClothesNetwork(nn.Module):
    """Three convolutions, one hidden layer and a linear head, without regularization: 107,000 weights.

    The input is float32 ``(n, 1, 28, 28)`` from 0 to 1, the output logits ``(n, 10)`` of :data:`CLOTHES`.

    Example:
        >>> import torch
        >>> from pushforward.data.samples.network import ClothesNetwork
        >>> ClothesNetwork()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1)
        self.hidden, self.head = nn.Linear(32 * 7 * 7, 58), nn.Linear(58, len(CLOTHES))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images."""
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        return self.head(F.relu(self.hidden(x.flatten(1))))


def load_clothes_network() -> ClothesNetwork:
    """The trained network, in evaluation mode.

    ``python -m benchmarks.networks.demo_network`` trained it on the training images of Fashion-MNIST but the first
    :data:`UNSEEN`. The first 3,000 images after these come with the package.

    Example:
        >>> import torch
        >>> from pushforward.data import load_clothes_network, load_image_sample
        >>> images = torch.from_numpy(load_image_sample("fashion-mnist", "test"))[:4, None] / 255
        >>> load_clothes_network()(images).argmax(1)
        tensor([9, 2, 1, 1])
    """
    from safetensors.torch import load_file

    net = ClothesNetwork()
    with resources.as_file(resources.files("pushforward.data.samples") / "clothes-network.safetensors") as path:
        net.load_state_dict(load_file(path))
    return net.eval()
