"""Small pictures: of single instances, for naming them, and of components that were parted."""

from __future__ import annotations

import base64
import io

import edt
import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from tomocensus.report.colours import colour
from tomocensus.volume import Volume

SIDE = 128
_OUTLINE = (255, 160, 0)
# Share of the picture that the object's longer side fills, and the least the picture shows (Å).
_FILL = 0.6
_LEAST = 700.0
# Of a parted component the neighbours are to be seen as well: longer side over half the picture.
_SPLIT_FILL = 1.1


def inner_point(labels: np.ndarray, number: int, box: tuple[slice, ...]) -> tuple[int, int, int]:
    """Return x, y, z (voxels) of a voxel that lies deep in an instance, near its middle.

    The centroid of a bent object may lie outside of it.

    Parameters
    ----------
    labels : numpy.ndarray
        ``(nz, ny, nx)``.
    number : int
        The instance.
    box : tuple of slice
        Its bounding box.
    """
    mask = np.asarray(labels[box]) == number
    depth = edt.edt(mask, black_border=True)
    # Of those that lie about as deep, the most central one.
    away = np.zeros(mask.shape, np.float32)
    for axis, length in enumerate(mask.shape):
        held = np.count_nonzero(mask, axis=tuple({0, 1, 2} - {axis}))
        places = np.arange(length)
        squares = (places - np.average(places, weights=held)) ** 2
        away += np.expand_dims(squares, tuple({0, 1, 2} - {axis})).astype(np.float32)
    away[depth < 0.9 * depth.max()] = np.inf
    place = np.unravel_index(away.argmin(), mask.shape)
    z, y, x = (int(at) + side.start for at, side in zip(place, box, strict=True))
    return x, y, z


def thumbnail(
    tomogram: Volume, labels: np.ndarray, number: int, point: tuple[int, int, int], extent: int
) -> str:
    """Draw the XY section through a point, with the outline of its instance.

    Parameters
    ----------
    tomogram : Volume
        Density.
    labels : numpy.ndarray
        Labelmap of the same shape.
    number : int
        The instance.
    point : tuple of int
        x, y, z in voxels.
    extent : int
        Longer side of the instance in x and y, voxels.

    Returns
    -------
    str
        PNG of :data:`SIDE` pixels each way, base64.
    """
    section = _Section(tomogram, point, max(extent / _FILL, _LEAST / tomogram.voxel_size) / 2)
    return section.outlined([section.labels(labels) == number], [_OUTLINE])


def split_pictures(
    tomogram: Volume, labels: np.ndarray, clusters: pd.DataFrame, count: int = 12
) -> list[dict]:
    """Draw components that clustering has parted, the most doubtful ones first.

    Parameters
    ----------
    tomogram : Volume
        Density.
    labels : numpy.ndarray
        Labelmap of the same shape.
    clusters : pandas.DataFrame
        Columns ``instance``, ``component``, ``origin``, ``neck_ratio``, ``voxels``.
    count : int
        Most components.

    Returns
    -------
    list of dict
        ``instance`` (the part whose neck is the widest), ``parts`` of its component,
        ``neck_ratio``, and ``before`` and ``after``: base64 PNG of the XY section through it, the
        component outlined as one and by parts.
    """
    split = clusters[clusters["origin"] == "split"]
    order = split.sort_values(["neck_ratio", "voxels", "instance"], ascending=[False, False, True])
    boxes = ndimage.find_objects(labels)
    drawn = []
    for row in order.groupby("component", sort=False).head(1).head(count).itertuples():
        own = clusters.loc[clusters["component"] == row.component, "instance"].to_numpy()
        if len(own) < 2:
            # The other parts were specks.
            continue
        box = boxes[row.instance - 1]
        extent = max(side.stop - side.start for side in box[1:])
        point = _where_parts_meet(labels, row.instance, own, box)
        section = _Section(tomogram, point, extent / _SPLIT_FILL)
        here = section.labels(labels)
        parts = [here == number for number in own if (here == number).any()]
        paints = [colour(index) for index in range(len(parts))]
        drawn.append(
            {
                "instance": int(row.instance),
                "parts": len(own),
                "neck_ratio": float(row.neck_ratio),
                "before": section.outlined([np.isin(here, own)], [_OUTLINE]),
                "after": section.outlined(parts, paints),
            }
        )
    return drawn


def _where_parts_meet(labels, number, own, box) -> tuple[int, int, int]:
    """Return x, y, z at a part's middle, in the slice that shows most of it and of other parts."""
    wide = tuple(slice(max(0, side.start - 2), side.stop + 2) for side in box)
    near = labels[wide]
    mine = near == number
    others = np.isin(near, own) & ~mine
    both = np.minimum(mine.sum(axis=(1, 2)), others.sum(axis=(1, 2)))
    if not both.any():
        return inner_point(labels, number, box)
    _, y, x = ((side.start + side.stop - 1) // 2 for side in box)
    return x, y, wide[0].start + int(both.argmax())


class _Section:
    """An XY section of a tomogram around a point x, y, z, `half` voxels to each side."""

    def __init__(self, tomogram: Volume, point: tuple[int, int, int], half: float):
        x, y, self.z = point
        self.window, places = [], []
        for centre, length in ((y, tomogram.shape[1]), (x, tomogram.shape[2])):
            at = centre + (np.arange(SIDE) + 0.5 - SIDE / 2) * 2 * half / SIDE
            low, high = max(0, int(at[0]) - 1), min(length, int(at[-1]) + 3)
            self.window.append(slice(low, high))
            places.append(at - low)
        self.grid = np.meshgrid(*places, indexing="ij")
        near = slice(max(0, self.z - 1), self.z + 2)
        density = np.nan_to_num(np.asarray(tomogram.data[(near, *self.window)], np.float32))
        # Padding is the same in all sections.
        differs = np.ptp(density, axis=0) > 0
        density = ndimage.gaussian_filter(density.mean(axis=0), max(half / SIDE, 0.6))
        low, high = np.percentile(density[differs] if differs.any() else density, (1, 99))
        # Outside of the tomogram the picture is black.
        drawn = ndimage.map_coordinates(density, self.grid, order=1, mode="constant", cval=low)
        self.grey = (np.clip((drawn - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)

    def labels(self, labels: np.ndarray) -> np.ndarray:
        """Return the labels of the picture's pixels."""
        near = np.asarray(labels[(self.z, *self.window)])
        return ndimage.map_coordinates(near, self.grid, order=0, mode="constant")

    def outlined(self, masks: list[np.ndarray], paints: list[tuple[int, int, int]]) -> str:
        """Return the section with masks outlined, as base64 PNG."""
        image = np.repeat(self.grey[..., None], 3, axis=2)
        for mask, paint in zip(masks, paints, strict=True):
            image[mask & ~ndimage.binary_erosion(mask)] = paint
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG", optimize=True)
        return base64.b64encode(stream.getvalue()).decode()
