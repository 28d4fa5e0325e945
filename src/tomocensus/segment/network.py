"""The network: a U-Net over slices that sees a few neighbouring slices as channels (2.5D).

After Ronneberger, Fischer & Brox 2015 (U-Net). Batch normalisation is folded into the
convolutions for prediction; unlike group normalisation it keeps the result independent of tiles.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tomocensus.errors import InputError


class Block(nn.Module):
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply both convolutions."""
        x = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(x)))

    def fold(self) -> None:
        """Put the normalisations into the convolutions."""
        self.conv1, self.norm1 = fuse_conv_bn_eval(self.conv1, self.norm1), nn.Identity()
        self.conv2, self.norm2 = fuse_conv_bn_eval(self.conv2, self.norm2), nn.Identity()


class UNet(nn.Module):
    """2.5D U-Net.

    Parameters
    ----------
    slices : int
        Neighbouring slices in.
    heads : int
        Maps out (logits).
    width : int
        Channels of the first level; each level has twice as many as the one above.
    depth : int
        Levels. Sides of the input are multiples of ``2 ** (depth - 1)``.
    """

    def __init__(self, slices: int, heads: int, width: int = 24, depth: int = 4):
        super().__init__()
        widths = [width * 2**level for level in range(depth)]
        self.down = nn.ModuleList(
            Block(before, after)
            for before, after in zip([slices, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[level + 1], widths[level], 2, stride=2)
            for level in range(depth - 1)
        )
        self.join = nn.ModuleList(
            Block(2 * widths[level], widths[level]) for level in range(depth - 1)
        )
        self.head = nn.Conv2d(width, heads, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, slices, y, x)`` to logits ``(batch, heads, y, x)``."""
        passed = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else nn.functional.max_pool2d(x, 2))
            passed.append(x)
        for level in reversed(range(len(self.up))):
            x = self.join[level](torch.cat([passed[level], self.up[level](x)], dim=1))
        return self.head(x)


def halo(depth: int) -> int:
    """Return how far (pixels, a multiple of the grid) an input pixel can act on the output."""
    step = 2 ** (depth - 1)
    # two convolutions a level on the way down (all levels) and up (all but the lowest), and pooling
    reach = sum(2 * 2**level for level in range(depth)) + sum(
        2 * 2**level + 2**level for level in range(depth - 1)
    )
    return -(-reach // step) * step


def build(architecture: dict, heads: int) -> UNet:
    """Build an untrained network from a card's ``architecture``."""
    return UNet(architecture["slices"], heads, architecture["width"], architecture["depth"])


@torch.no_grad()
def widened(network: UNet, width: int, generator: np.random.Generator, noise: float = 0.0) -> UNet:
    """Return a wider network that says the same: some channels are there more than once.

    Each reader of a channel divides its weights by how often that is there (Net2Wider; Chen,
    Goodfellow & Shlens, ICLR 2016).

    Parameters
    ----------
    network : UNet
        The narrow one.
    width : int
        Channels of the first level, at least as many as it has.
    generator : numpy.random.Generator
        Chooses which channels are there more than once.
    noise : float
        Added to the weights, as a share of their deviation: copies that stay the same would learn
        the same.
    """
    old = network.head.in_channels
    slices, depth = network.down[0].conv1.in_channels, len(network.down)
    wide = UNet(slices, network.head.out_channels, width, depth)

    def copies(level: int) -> np.ndarray:
        count, more = old * 2**level, (width - old) * 2**level
        return np.r_[np.arange(count), generator.integers(count, size=more)]

    def fill(new, narrow, outs: np.ndarray, ins: np.ndarray, axes=(0, 1)) -> None:
        share = 1 / np.bincount(ins)[ins]
        weight = narrow.weight.index_select(axes[0], torch.from_numpy(outs))
        weight = weight.index_select(axes[1], torch.from_numpy(ins))
        shape = [-1 if axis == axes[1] else 1 for axis in range(4)]
        weight = weight * torch.from_numpy(share.astype(np.float32)).reshape(shape)
        weight += noise * narrow.weight.std() * torch.randn_like(weight) * share.mean()
        new.weight.copy_(weight)
        if narrow.bias is not None:
            new.bias.copy_(narrow.bias[torch.from_numpy(outs)])

    def norm(new, narrow, outs: np.ndarray) -> None:
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(new, name).copy_(getattr(narrow, name)[torch.from_numpy(outs)])

    def block(new: Block, narrow: Block, level: int, ins: np.ndarray) -> np.ndarray:
        middle, outs = copies(level), copies(level)
        fill(new.conv1, narrow.conv1, middle, ins)
        norm(new.norm1, narrow.norm1, middle)
        fill(new.conv2, narrow.conv2, outs, middle)
        norm(new.norm2, narrow.norm2, outs)
        return outs

    ins, passed = np.arange(slices), []
    for level in range(depth):
        ins = block(wide.down[level], network.down[level], level, ins)
        passed.append(ins)
    for level in reversed(range(depth - 1)):
        outs = copies(level)
        fill(wide.up[level], network.up[level], outs, ins, axes=(1, 0))
        joined = np.r_[passed[level], old * 2**level + outs]
        ins = block(wide.join[level], network.join[level], level, joined)
    fill(wide.head, network.head, np.arange(network.head.out_channels), ins)
    return wide.eval()


def from_card(card: dict, weights: dict[str, np.ndarray], where: str = "model") -> UNet:
    """Build the network that a card describes and load its weights (float32, eval mode).

    Raises
    ------
    InputError
        Where card and weights do not fit.
    """
    try:
        network = build(card["architecture"], len(card["heads"]))
        state = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
        network.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{where}: card and weights do not make a segmenter ({error}). Retrain the model."
        ) from error
    return network.eval()


def fold(network: UNet) -> UNet:
    """Fold every batch normalisation into its convolution (in place); for prediction only."""
    network.eval()
    for block in [*network.down, *network.join]:
        block.fold()
    return network


def working_voxel_size(card: dict, voxel_sizes: list[float]) -> float:
    """Return the voxel size (Å) at which a network works on some tomograms.

    A model of one voxel size works at that; a base model, trained on a range of them, at the
    tomograms' median within its range.

    Parameters
    ----------
    card : dict
        Of the model: ``voxel_size`` and perhaps ``voxel_size_range``.
    voxel_sizes : list of float
        Å, of the tomograms.
    """
    if "voxel_size_range" in card:
        return float(np.clip(np.median(voxel_sizes), *card["voxel_size_range"]))
    return float(card["voxel_size"])
