"""Shapes of cellular objects as signed distance fields.

A body knows where it lies and gives, for open meshes of coordinates, the distance of each point to
its surface: voxels, negative inside. Bodies are unions of balls along paths (everything that is
round, tubular or branched) or curved sheets (everything that is flat).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

FAR = 1e4  # voxels; distance where nothing was computed


@dataclass
class Body:
    """A shape in the field: its bounds, its distance function and its size."""

    low: np.ndarray
    high: np.ndarray
    radius: float
    axis: np.ndarray
    distance: Callable
    waviness: float = 0.0
    frame: Callable | None = None


def balls(points, radii, reach: float, squash=(1.0, 1.0, 1.0), waviness: float = 0.0) -> Body:
    """Return the union of balls; dense along a path they make a tube.

    Parameters
    ----------
    points : numpy.ndarray
        ``(n, 3)``, ZYX in voxels.
    radii : float or numpy.ndarray
        Voxels.
    reach : float
        Voxels outside the surface to which the distance is needed.
    squash : sequence of float
        Factors on distances along z, y, x.
    waviness : float
        Standard deviation of the surface, as a share of the radius.
    """
    points = np.atleast_2d(points)
    radii = np.broadcast_to(np.asarray(radii, float), len(points))
    squash = np.asarray(squash)
    widest = float(radii.max())
    around = (radii * (1 + 3 * waviness) + reach)[:, np.newaxis] / squash

    def distance(mesh):
        axes = [np.ravel(axis) for axis in mesh]
        found = np.full([len(axis) for axis in axes], FAR, np.float32)
        for point, radius, extent in zip(points, radii, around, strict=True):
            spans = [
                slice(*np.searchsorted(axis, (at - side, at + side)))
                for axis, at, side in zip(axes, point, extent, strict=True)
            ]
            z, y, x = (
                ((axis[span] - at) * factor) ** 2
                for axis, span, at, factor in zip(axes, spans, point, squash, strict=True)
            )
            part = np.sqrt(z[:, None, None] + y[:, None] + x, dtype=np.float32) - np.float32(radius)
            window = found[tuple(spans)]
            np.minimum(window, part, out=window)
        return found

    low, high = (points - around).min(axis=0), (points + around).max(axis=0)
    return Body(low, high, widest, points, distance, waviness)


def path(rng, centre, length, step, bend, flatness: float = 0.25) -> np.ndarray:
    """Return the points ``(n, 3)`` of a worm-like line through a centre.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the course.
    centre : sequence of float
        ZYX, the middle of the line.
    length, step : float
        Voxels.
    bend : float
        Turn in radians over the whole length.
    flatness : float
        Size of the z component beside y and x: cells in a thin slab lie flat.
    """
    count = max(2, int(length / step) + 1)
    direction = rng.normal(size=3) * (flatness, 1, 1)
    direction /= np.linalg.norm(direction)
    turn = np.cross(direction, rng.normal(size=3))
    turn /= np.linalg.norm(turn) + 1e-9
    wiggles = ndimage.gaussian_filter1d(rng.normal(size=(count, 3)), max(count / 8, 1), axis=0)
    wiggles /= wiggles.std() + 1e-9
    along = np.linspace(-0.5, 0.5, count)[:, np.newaxis]
    directions = direction + bend * (along * turn + 0.25 * wiggles)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    points = np.cumsum(directions * step, axis=0)
    return points - points[count // 2] + centre


def branched(rng, centre, length, step, bend, branches: int) -> np.ndarray:
    """Return the points of a line with side branches."""
    points = [path(rng, centre, length, step, bend)]
    for _ in range(branches):
        start = points[0][rng.integers(len(points[0]))]
        side = path(rng, start, length, step, bend)
        points.append(side[len(side) // 2 :])
    return np.concatenate(points)


@dataclass
class Sheet:
    """A curved surface through a centre: coordinates along it (u, v) and across it (w)."""

    centre: np.ndarray
    normal: np.ndarray
    along: np.ndarray
    across: np.ndarray
    curves: tuple
    waves: tuple

    def coordinates(self, mesh):
        """Return u, v and w in voxels at the points of an open mesh."""
        away = [axis - at for axis, at in zip(mesh, self.centre, strict=True)]
        u, v, w = (
            (away[0] * way[0] + away[1] * way[1] + away[2] * way[2]).astype(np.float32)
            for way in (self.along, self.across, self.normal)
        )
        w = w - self.curves[0] * u * u - self.curves[1] * v * v
        for height, period, phase, of_v in self.waves:
            w = w - height * np.sin(2 * np.pi * (u if not of_v else v) / period + phase)
        return u, v, w


def sheet(rng, centre, extent: float, bend: float, steep: float = 0.3) -> Sheet:
    """Draw a sheet.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the course.
    centre : sequence of float
        ZYX in voxels.
    extent : float
        Size of the sheet in voxels, over which it bends.
    bend : float
        Height of the arc and the waves, as a share of the extent.
    steep : float
        Size of the z component of the normal: small ones are seen edge-on in XY slices.
    """
    normal = rng.normal(size=3) * (steep, 1, 1)
    normal /= np.linalg.norm(normal)
    along = np.cross(normal, (1, 0, 0) if abs(normal[0]) < 0.9 else (0, 1, 0))
    along /= np.linalg.norm(along)
    across = np.cross(normal, along)
    curves = rng.uniform(-1, 1, 2) * bend / extent
    waves = tuple(
        (0.06 * bend * extent * rng.normal(), extent * rng.uniform(0.4, 1.2), rng.uniform(0, 6), v)
        for v in (0, 1)
    )
    return Sheet(np.asarray(centre, float), normal, along, across, tuple(curves), waves)


def slab(surface: Sheet, half: float, extent: float, shape, holes=(), waviness=0.0) -> Body:
    """Return a sheet of a thickness with a rounded rim.

    Parameters
    ----------
    surface : Sheet
        Its middle.
    half : float
        Half its thickness, voxels.
    extent : float
        Radius of the sheet, voxels; ``inf`` for one through the whole field.
    shape : tuple of int
        Of the field.
    holes : iterable
        ``(u, v, radius)`` of holes through it.
    waviness : float
        As in `balls`.
    """

    def distance(mesh):
        u, v, w = surface.coordinates(mesh)
        if np.isfinite(extent):
            beyond = np.maximum(np.hypot(u, v) - (extent - half), 0)
            found = np.hypot(beyond, w) - half
        else:
            found = np.abs(w) - half
        for at_u, at_v, radius in holes:
            found = np.maximum(found, radius - np.hypot(u - at_u, v - at_v))
        return found.astype(np.float32)

    shape = np.asarray(shape, float)
    size = min(extent, float(shape.max())) * 1.3 + half
    low, high = surface.centre - size, surface.centre + size
    if not np.isfinite(extent):
        low, high = np.zeros(3), shape
    middle = surface.centre[np.newaxis]
    return Body(low, high, half, middle, distance, waviness, surface.coordinates)


def sample(body: Body, shape, rng, margin: float):
    """Sample a body's distance on a coarse mesh of its box in the field.

    Parameters
    ----------
    body : Body
        The shape.
    shape : tuple of int
        Of the field.
    rng : numpy.random.Generator
        For the waviness.
    margin : float
        Voxels around the body.

    Returns
    -------
    tuple or None
        ``(box, step, distance)``: slices of the field, voxels between samples, and the coarse
        field; None where the body is out of the field.
    """
    low = np.maximum(np.floor(body.low - margin), 0).astype(int)
    high = np.minimum(np.ceil(body.high + margin) + 1, shape).astype(int)
    if (high - low < 2).any():
        return None
    # Distances are smooth on the scale of the radius, so a tenth of it is fine enough a mesh.
    step = max(1, int(body.radius / 9))
    spans = [
        np.arange(a, b + (step - 1), step, dtype=float) for a, b in zip(low, high, strict=True)
    ]
    distance = body.distance(np.ix_(*spans))
    if body.waviness:
        waves = rng.normal(size=distance.shape).astype(np.float32)
        waves = ndimage.gaussian_filter(waves, max(0.45 * body.radius / step, 1), truncate=2.5)
        distance += waves * (body.waviness * body.radius / (waves.std() + 1e-9))
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), step, distance


def refine(distance: np.ndarray, step: int, shape) -> np.ndarray:
    """Interpolate a coarse field linearly to every voxel of its box."""
    if step == 1:
        return distance
    for axis, size in enumerate(shape):
        place = np.arange(size) / step
        below = np.minimum(place.astype(int), distance.shape[axis] - 2)
        share = (place - below).astype(np.float32)
        share = share.reshape([-1 if i == axis else 1 for i in range(3)])
        low, high = (np.take(distance, at, axis=axis) for at in (below, below + 1))
        distance = low + (high - low) * share
    return distance
