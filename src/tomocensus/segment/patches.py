"""Random augmented patches of annotated slices."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from tomocensus.devices import to_device
from tomocensus.segment.contrast import mirrored
from tomocensus.segment.targets import IGNORE, TargetSlice

# Steps between target 0 and 1.
FINE = 250
# Largest change of scale, natural logarithm.
ZOOM = 0.15
# Noise of patches that become as noisy as other tomograms may be, in deviations of what is there.
STRONG_NOISE = (0.3, 3.0)


class Patches:
    """Random augmented patches; half are centred on an object, half anywhere annotated.

    Slices lie on the device where patches are used: a GPU draws them as fast as it learns. A part
    (`noisier`) gets so much more noise that what is learnt from clear tomograms serves others too.
    """

    def __init__(
        self,
        targets: list[TargetSlice],
        patch: int,
        generator: np.random.Generator,
        device: torch.device | str = "cpu",
        noisier: float = 0.0,
    ):
        self.generator = generator
        self.noisier = noisier
        self.patch = patch
        self.device = torch.device(device)
        self.noise = torch.Generator(self.device)
        self.noise.manual_seed(int(generator.integers(2**31)))
        # Voxels of objects and voxels that are annotated, as pairs of slice and places.
        self.objects: list[tuple[int, np.ndarray]] = []
        self.known: list[tuple[int, np.ndarray]] = []
        self.images: list[torch.Tensor] = []
        self.targets: list[torch.Tensor] = []
        self.add(targets)

    def add(self, targets: list[TargetSlice]) -> None:
        """Take more slices."""
        half = self.device.type == "cuda"
        for one in targets:
            shifted = self._shifted(one)
            for places, here in ((self.objects, shifted[0] > FINE), (self.known, shifted[0] > 0)):
                found = np.argwhere(here).astype(np.int16)
                if len(found):
                    places.append((len(self.images), found))
            image = to_device(np.ascontiguousarray(one.image), self.device)
            self.images.append(image.half() if half else image)
            self.targets.append(to_device(shifted, self.device))

    @staticmethod
    def _shifted(one: TargetSlice) -> np.ndarray:
        """Return targets and weights ``(heads + 1, ny, nx)``.

        Targets of 0-1 are 1 to 1 + FINE; 0, which sampling puts outside, is unknown.
        """
        target = one.training_target()
        shifted = np.where(target == IGNORE, 0, np.uint8(FINE) * (target == 1) + np.uint8(1))
        if one.expected is not None:
            fill = one.untold() & ~one.held_out & np.isfinite(one.expected)
            shifted[fill] = 1 + np.rint(FINE * one.expected[fill])
        weight = np.ones_like(shifted[0]) if one.weight is None else one.weight
        return np.concatenate([shifted, weight[None]])

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return images ``(size, slices, y, x)``, targets ``(size, heads, ...)`` and weights."""
        image, target = self._windows(size)
        grid = self._grids(size)
        image = functional.grid_sample(image.float(), grid, align_corners=False)
        target = functional.grid_sample(target.float(), grid, mode="nearest", align_corners=False)
        flipped = self._each(self.generator.random(size) < 0.5)
        image = torch.where(flipped, image.flip(1), image)
        target, weight = target[:, :-1], target[:, -1:]
        target = torch.where(target > 0, (target - 1) / FINE, torch.full_like(target, IGNORE))
        return self._contrast(image), target, weight

    def _each(self, values: np.ndarray) -> torch.Tensor:
        """Return a value for each patch on the device, ``(size, 1, 1, 1)``."""
        values = values if values.dtype == bool else values.astype(np.float32)
        return to_device(values, self.device)[:, None, None, None]

    def _windows(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images and targets of squares that hold a patch however it is turned.

        Beyond its border a slice is mirrored, and nothing is known. Half are centred on objects.
        """
        chosen, taken, inside = zip(
            *(self._window(number % 2 == 0) for number in range(size)), strict=True
        )
        # One copy for all: each would wait until a GPU has done what it was asked before.
        taken = to_device(np.array(taken), self.device)
        inside = to_device(np.array(inside), self.device)
        image, target = (
            torch.stack(
                [
                    kept[index].index_select(1, y).index_select(2, x)
                    for index, (y, x) in zip(chosen, taken, strict=True)
                ]
            )
            for kept in (self.images, self.targets)
        )
        within = inside[:, 0, :, None] & inside[:, 1, None, :]
        return image, target * within[:, None]

    def _window(self, on_object: bool) -> tuple[int, list[np.ndarray], list[np.ndarray]]:
        """Return a slice, and which of its rows and columns a window takes, and which are there."""
        places = self.objects if on_object else self.known
        index, found = places[self.generator.integers(len(places))]
        centre = found[self.generator.integers(len(found))]
        centre = centre + self.generator.uniform(-0.3, 0.3, 2) * self.patch
        side = self._side()
        start = np.rint(centre - (side - 1) / 2).astype(int)
        taken, inside = [], []
        for first, length in zip(start, self.images[index].shape[1:], strict=True):
            at = np.arange(first, first + side)
            inside.append((at >= 0) & (at < length))
            taken.append(mirrored(at, length))
        return index, taken, inside

    def _side(self) -> int:
        """Return the voxels of a side of the windows."""
        return math.ceil(self.patch * math.exp(ZOOM) * math.sqrt(2)) + 2

    def _grids(self, size: int) -> torch.Tensor:
        """Return sampling places of rotated, mirrored, slightly scaled squares in the windows."""
        draw = self.generator
        angle = draw.uniform(0, 2 * math.pi, size)
        zoom = np.exp(draw.uniform(-ZOOM, ZOOM, size))
        mirror = np.where(draw.random(size) < 0.5, 1, -1)
        turn = np.stack(
            [
                zoom * mirror * np.cos(angle),
                -zoom * np.sin(angle),
                zoom * mirror * np.sin(angle),
                zoom * np.cos(angle),
            ],
            axis=1,
        )
        turn = to_device(turn.astype(np.float32).reshape(size, 2, 2), self.device)
        steps = torch.arange(self.patch, dtype=torch.float32, device=self.device)
        steps = (steps - (self.patch - 1) / 2) * 2 / self._side()
        v, u = torch.meshgrid(steps, steps, indexing="ij")
        return torch.einsum("bij,yxj->byxi", turn, torch.stack([u, v], dim=-1))

    def _contrast(self, image: torch.Tensor) -> torch.Tensor:
        """Change what differs between tomograms: contrast, brightness, noise, sharpness."""
        draw, size = self.generator, len(image)
        blurred = draw.random(size) < 0.2
        if blurred.any():
            image = torch.where(self._each(blurred), _blurred(image), image)
        gamma = self._each(np.exp(draw.uniform(-0.2, 0.2, size)))
        image = image.sign() * image.abs().clamp_min(1e-6) ** gamma
        image = image * self._each(np.exp(draw.uniform(-0.3, 0.3, size)))
        image = image + self._each(draw.uniform(-0.3, 0.3, size))
        amount = np.where(draw.random(size) < 0.5, draw.uniform(0, 0.5, size), 0)
        noise = torch.randn(image.shape, generator=self.noise, device=self.device)
        return self._noisier(image + noise * self._each(amount))

    def _noisier(self, image: torch.Tensor) -> torch.Tensor:
        """Drown a part of the patches in noise of some texture; contrast stays what it was."""
        if not self.noisier:
            return image
        draw, size = self.generator, len(image)
        chosen = draw.random(size) < self.noisier
        noise = torch.randn(image.shape, generator=self.noise, device=self.device)
        # A missing wedge smears noise across slices, interpolation and filters within them.
        for axes in ((1,), (1,), (2, 3), (2, 3)):
            smooth = self._each(draw.random(size) < 0.4)
            noise = torch.where(smooth, _blurred(noise, axes), noise)
        noise = noise / noise.std(dim=(1, 2, 3), keepdim=True)
        low, high = np.log(STRONG_NOISE)
        amount = self._each(chosen * np.exp(draw.uniform(low, high, size)))
        return (image + amount * noise) / torch.sqrt(1 + amount**2)


def _blurred(image: torch.Tensor, axes: tuple[int, ...] = (2, 3)) -> torch.Tensor:
    """Smooth a little along axes: a quarter, a half, a quarter."""
    for axis in axes:
        count = image.shape[axis]
        first, last = image.narrow(axis, 0, 1), image.narrow(axis, count - 1, 1)
        padded = torch.cat([first, image, last], axis)
        below, above = (padded.narrow(axis, start, count) for start in (0, 2))
        image = image / 2 + (below + above) / 4
    return image
