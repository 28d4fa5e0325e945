"""A small 3D convolutional network from the view of an object to a vector."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from tomocensus.models import Model


class Encoder(nn.Module):
    """Four convolutions with strides, mean and maximum over space, one vector of unit length."""

    def __init__(self, width: int = 16, dimensions: int = 32):
        super().__init__()
        sizes = [2, width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(itertools.pairwise(sizes)):
            layers += [
                nn.Conv3d(before, after, 3, stride=1 if index == 0 else 2, padding=1, bias=False),
                nn.GroupNorm(4, after),
                nn.ReLU(inplace=True),
            ]
        self.body = nn.Sequential(*layers)
        self.out = nn.Linear(8 * width, dimensions)

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """Map ``(n, 2, side, side, side)`` to ``(n, dimensions)``."""
        maps = self.body(views)
        pooled = torch.cat([maps.mean(dim=(2, 3, 4)), maps.amax(dim=(2, 3, 4))], dim=1)
        return nn.functional.normalize(self.out(pooled), dim=1)


def build(model: Model) -> Encoder:
    """Return the network of a model of kind ``encoder``, ready to predict."""
    network = Encoder(model.card["width"], model.card["dimensions"])
    network.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in model.weights.items()})
    return network.eval()
