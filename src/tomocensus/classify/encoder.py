"""A 3D convolutional network from the views of an object to one vector."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from tomocensus.classify.views import CLOSE
from tomocensus.errors import InputError
from tomocensus.models import Model

SCALES = 3


class Trunk(nn.Module):
    """Four convolutions, mean and maximum over space: ``(n, 2, s, s, s)`` to ``(n, 8 width)``."""

    def __init__(self, width: int):
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

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Map crops to vectors."""
        maps = self.body(crops)
        return torch.cat([maps.mean(dim=(2, 3, 4)), maps.amax(dim=(2, 3, 4))], dim=1)


class Encoder(nn.Module):
    """A trunk for each scale; close looks are pooled; one vector of unit length.

    Parameters
    ----------
    width : int
        Channels of the first convolution.
    dimensions : int
        Length of the vector.
    """

    def __init__(self, width: int = 16, dimensions: int = 48):
        super().__init__()
        self.trunks = nn.ModuleList(Trunk(width) for _ in range(SCALES))
        # The maximum over close looks as well as their mean.
        self.out = nn.Sequential(
            nn.Linear(8 * width * (SCALES + 1), 128),
            nn.ReLU(inplace=True),
            nn.Linear(128, dimensions),
        )

    def forward(
        self, crops: torch.Tensor, kinds: torch.Tensor, owners: torch.Tensor
    ) -> torch.Tensor:
        """Map the crops of some objects to ``(objects, dimensions)``.

        Parameters
        ----------
        crops : torch.Tensor
            ``(v, 2, side, side, side)``.
        kinds : torch.Tensor
            ``(v,)`` long: which scale.
        owners : torch.Tensor
            ``(v,)`` long: which object, ascending; every object has every scale.
        """
        parts = []
        count = int(owners.max()) + 1
        for scale, trunk in enumerate(self.trunks):
            mine = kinds == scale
            vectors, owner = trunk(crops[mine]), owners[mine]
            mean = vectors.new_zeros(count, vectors.shape[1]).index_add(0, owner, vectors)
            number = torch.bincount(owner, minlength=count).clamp_min(1)
            parts.append(mean / number[:, None])
            if scale == CLOSE:
                index = owner[:, None].expand_as(vectors)
                most = vectors.new_zeros(count, vectors.shape[1])
                parts.append(most.scatter_reduce(0, index, vectors, "amax"))
        return nn.functional.normalize(self.out(torch.cat(parts, dim=1)), dim=1)


def build(model: Model) -> Encoder:
    """Return the network of a model of kind ``encoder``, ready to predict."""
    network = Encoder(model.card["width"], model.card["dimensions"])
    names = network.state_dict()
    missing = sorted(set(names) - set(model.weights))
    if missing:
        raise InputError(
            f"{model.path or 'encoder'}: weights {missing[0]} are missing: it was made by another "
            "version. Use the encoder that comes with this one."
        )
    state = {name: torch.from_numpy(model.weights[name].copy()) for name in names}
    network.load_state_dict(state)
    return network.eval()
