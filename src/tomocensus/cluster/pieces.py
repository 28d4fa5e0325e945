"""From one component to its objects: fill, judge, split, or build from lumens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cc3d
import edt
import numpy as np
from scipy import ndimage

from tomocensus.cluster.necks import split_at_necks
from tomocensus.cluster.outlines import ROOM, borders, regrow, split_by_outlines
from tomocensus.cluster.shells import (
    fill_slices,
    find_lumens,
    find_shared_walls,
    open_share,
    sides_cut,
)
from tomocensus.cluster.smoothing import chances, widened
from tomocensus.cluster.solidity import digital_solidity
from tomocensus.distances import FAR, distance_inside, nearest_labels

# Edges of a voxel (z, y, x) over the shortest one.
CUBES = (1.0, 1.0, 1.0)
# Least part of a component that convex objects must make up to be built from torn shells' lumens.
LUMINAL = 0.2
# Part of the surface of filled lumens without membrane from which shells count as torn.
TORN = 0.2
# The same, up to which there are no lumens left to find.
WHOLE = 0.02
# Voxels over the cube of the half-thickness: of a ball 4; from here on an object is flat or long,
# and a whole component is a sheet or net.
FLAT, WIDE = 15.0, 500.0
# Digital solidity from which a piece counts as convex.
CONVEX = 0.85


@dataclass
class Piece:
    """One instance in its crop."""

    start: tuple[int, int, int]
    mask: np.ndarray
    solidity: float
    origin: str
    component: int
    neck_ratio: float
    fill: str
    filled_voxels: int
    chance: float = 1.0

    def __post_init__(self):
        self.voxels = int(np.count_nonzero(self.mask))

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where its crop lies in the volume."""
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.mask.shape, strict=True))


def _with_lumens(crop, start, number, edge, parameters, smallest) -> list[Piece]:
    """Build objects from lumens and the membrane next to them; the rest is judged by itself."""
    lumens = find_lumens(crop, smallest=0.2 * smallest)
    if not lumens.any():
        return []
    wall = _wall(crop, lumens)
    lumens = _wide(lumens, wall / 2)
    if not lumens.any():
        return []
    # One voxel more than the wall, for its surface is rough.
    objects = np.where(crop, nearest_labels(lumens, wall + 1), lumens)
    pieces = []
    for label, box in enumerate(ndimage.find_objects(objects), start=1):
        piece = objects[box] == label
        place = tuple(a + side.start for a, side in zip(start, box, strict=True))
        gained = int(np.count_nonzero(piece & ~crop[box]))
        solidity = digital_solidity(piece)
        pieces.append(Piece(place, piece, solidity, "split", number, 0.0, "lumen", gained))
    if _between_sheets(pieces, crop | (lumens > 0)):
        return []
    if len(pieces) == 1:
        pieces[0].origin, pieces[0].neck_ratio = "whole", 1.0
    rest = cc3d.connected_components(crop & (objects == 0), connectivity=26)
    for label, box in enumerate(ndimage.find_objects(rest), start=1):
        place = tuple(a + side.start for a, side in zip(start, box, strict=True))
        near_edge = None if edge is None else edge[box]
        pieces += _by_necks(rest[box] == label, place, number, near_edge, parameters, smallest)
    return pieces


def _between_sheets(pieces: list[Piece], together: np.ndarray) -> bool:
    """Tell the lumens of one double membrane, which bridges across it part, from those of shells.

    Most are flat, and all together are a sheet.
    """
    if len(pieces) < 2 or not _spread(together, WIDE):
        return False
    flat = sum(piece.voxels for piece in pieces if _spread(piece.mask, FLAT))
    return 2 * flat > sum(piece.voxels for piece in pieces)


def _spread(mask: np.ndarray, least: float) -> bool:
    """Tell whether a mask holds more than `least` times its half-thickness cubed."""
    return np.count_nonzero(mask) > least * float(distance_inside(mask).max()) ** 3


def _wide(lumens: np.ndarray, least: float) -> np.ndarray:
    """Return the lumens with a half-width of at least `least` voxels, numbered anew.

    Others are holes: what lies inside a solid object and is no part of it leaves such ones.
    """
    depth = distance_inside(lumens > 0, border=False)
    kept = np.zeros(int(lumens.max()) + 1, bool)
    kept[lumens[depth >= least]] = True
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0)[lumens]


def _wall(crop: np.ndarray, lumens: np.ndarray) -> float:
    """Return how thick the membrane around lumens is, in voxels.

    Parameters
    ----------
    crop : numpy.ndarray
        Bool, the membrane and what touches it.
    lumens : numpy.ndarray
        Labels, 0 outside.
    """
    depth = distance_inside(crop)
    beside = crop & (nearest_labels(lumens, 2.5) > 0)
    half, reach = float(np.median(depth[beside])), 0.0
    # Of a wall of two or three voxels that is all.
    while half > max(1.2, reach - 0.5):
        # What is looked at must reach beyond the middle of the wall.
        reach = max(2.0, 2 * reach)
        deepest = ndimage.maximum_filter(depth, size=2 * int(reach) + 1)
        # The median, for a solid neighbour must not pass for a thick wall.
        half = float(np.median(deepest[beside]))
    return 2 * half


def part_by_outlines(
    crop, start, number, boundary, parameters, smallest, aspect=CUBES
) -> list[Piece]:
    """Part one component where outlines show, then each part by convexity.

    Parameters
    ----------
    crop : numpy.ndarray
        Bool, the component in its box.
    start : tuple of int
        Where that lies in the volume (z, y, x).
    number : int
        The component's.
    boundary : numpy.ndarray
        Map of the whole volume, of which only the box with some room is read; so the result does
        not depend on how large a part of the volume is in memory.
    parameters : ClusterParameters
        See there.
    smallest : float
        Voxels.
    aspect : tuple of float
        Edges of a voxel (z, y, x) over the shortest one.

    Returns
    -------
    list of Piece
        Those of at least `smallest` voxels have their share of the cut between the parts again.
    """
    box = tuple(slice(a, a + n) for a, n in zip(start, crop.shape, strict=True))
    wide, inner = widened(box, boundary.shape, ROOM)
    mask = np.zeros([side.stop - side.start for side in wide], bool)
    mask[inner] = crop
    regions = split_by_outlines(mask, chances(boundary[wide]))[inner]
    given = (parameters, smallest, aspect, boundary.shape)
    if regions.max() < 2:
        return separate(crop, start, number, None, *given)
    # Regions that meet at a corner beside background stay apart as well.
    inside = np.where(crop & ~borders(regions), regions, 0)
    parts = cc3d.connected_components(inside, connectivity=26)
    large, specks = [], []
    for label, place in enumerate(ndimage.find_objects(parts.astype(np.int32)), start=1):
        at = tuple(a + side.start for a, side in zip(start, place, strict=True))
        part = parts[place] == label
        region = int(regions[place].flat[part.argmax()])
        for piece in separate(part, at, number, None, *given):
            if piece.voxels < smallest:
                specks.append(piece)
            else:
                large.append((piece, region))
    return _regrown(large, start, regions) + specks


def _regrown(pieces, start, regions) -> list[Piece]:
    """Give pieces, each with its region, the voxels of that which the cut along its border took."""
    canvas = np.zeros(regions.shape, np.int32)
    # The largest first, so that nested objects stay.
    pieces = sorted(pieces, key=lambda pair: (-pair[0].voxels, pair[0].start))
    order = [piece for piece, _ in pieces]
    for label, piece in enumerate(order, start=1):
        place = tuple(slice(a.start - b, a.stop - b) for a, b in zip(piece.box, start, strict=True))
        canvas[place][piece.mask] = label
    # What encloses another is filled, and so holds that one's border as well.
    own = np.array([0, *(region for _, region in pieces)])
    held = np.isin(np.arange(regions.max() + 1), own[1:])
    filled = canvas.copy()
    canvas[held[regions] & (own[canvas] != regions)] = 0
    regrow(canvas, regions)
    canvas = np.where(canvas == 0, filled, canvas)
    grown = []
    for label, place in enumerate(ndimage.find_objects(canvas, len(order)), start=1):
        if place is None:
            continue
        piece = order[label - 1]
        at = tuple(a + side.start for a, side in zip(start, place, strict=True))
        parted = piece.origin == "whole" and len(order) > 1
        # An outline parts them, however wide the neck.
        how = {"origin": "split", "neck_ratio": 0.0} if parted else {}
        grown.append(replace(piece, start=at, mask=canvas[place] == label, **how))
    return grown


def separate(crop, start, number, edge, parameters, smallest, aspect, volume) -> list[Piece]:
    """Turn one component into pieces; voxels that are no cubes are cut into cubes for that.

    Parameters
    ----------
    crop : numpy.ndarray
        Bool, the component in its box.
    start : tuple of int
        Where that lies in the volume (z, y, x).
    number : int
        The component's.
    edge : numpy.ndarray, optional
        Bool; where an outline is predicted.
    parameters : ClusterParameters
        See there.
    smallest : float
        Voxels.
    aspect : tuple of float
        Edges of a voxel (z, y, x) over the shortest one.
    volume : tuple of int
        Sides of the volume, at which shells are cut.
    """
    cut = sides_cut(start, crop.shape, volume)
    if aspect == CUBES:
        return _separate(crop, start, number, edge, parameters, smallest, cut)
    cubes, at = to_cubes(crop, aspect)
    walls = None if edge is None else to_cubes(edge, aspect)[0]
    smallest = smallest * float(np.prod(aspect))
    pieces = []
    for piece in _separate(cubes, (0, 0, 0), number, walls, parameters, smallest, cut):
        # Of the cubes that lie at the middle of a voxel.
        sides = [
            slice(*np.searchsorted(middles, (side.start, side.stop)))
            for middles, side in zip(at, piece.box, strict=True)
        ]
        picked = [m[side] - low for m, side, low in zip(at, sides, piece.start, strict=True)]
        mask = piece.mask[np.ix_(*picked)]
        if mask.any():
            place = tuple(a + side.start for a, side in zip(start, sides, strict=True))
            extra = int(np.count_nonzero(mask & ~crop[tuple(sides)]))
            how = piece.fill if extra else "none"
            solidity = digital_solidity(mask)
            fresh = replace(piece, start=place, mask=mask, solidity=solidity, fill=how)
            pieces.append(replace(fresh, filled_voxels=extra))
    return pieces


def to_cubes(mask: np.ndarray, aspect: tuple[float, float, float]) -> tuple[np.ndarray, list]:
    """Return a mask on a grid of cubes, and the indices of the voxels' middles on it, by axis.

    Parameters
    ----------
    mask : numpy.ndarray
        Bool, ``(nz, ny, nx)``.
    aspect : tuple of float
        Edges of a voxel (z, y, x) over the shortest one, which becomes the cubes' edge.

    Notes
    -----
    Between the middles the surface is interpolated; at the middles the mask is as it was, so no
    voxel is lost or gained on the way there and back.
    """
    wide = np.pad(mask, 1)
    # Infinite where nothing is in the mask.
    inside, outside = (
        np.minimum(edt.edt(part, anisotropy=tuple(aspect), black_border=False), FAR)
        for part in (wide, ~wide)
    )
    field = np.ascontiguousarray((inside - outside)[1:-1, 1:-1, 1:-1])
    at = [
        np.rint(np.arange(n) * r).astype(np.int64) for n, r in zip(mask.shape, aspect, strict=True)
    ]
    for axis, ratio in enumerate(aspect):
        if ratio == 1:
            continue
        place = np.minimum(np.arange(at[axis][-1] + 1) / ratio, mask.shape[axis] - 1)
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, mask.shape[axis] - 1)
        share = (place - low).astype(np.float32)
        share = share.reshape([-1 if a == axis else 1 for a in range(3)])
        field = field.take(low, axis) * (1 - share) + field.take(high, axis) * share
    cubes = field >= 0
    cubes[np.ix_(*at)] = mask
    return cubes, at


def _separate(crop, start, number, edge, parameters, smallest, cut) -> list[Piece]:
    """Turn one component into pieces, with lumens where slice-wise filling leaves shells open."""
    given = (start, number, edge, parameters, smallest)
    voxels = np.count_nonzero(crop)
    filled = fill_slices(crop, cut) if parameters.fill else crop
    if not (parameters.fill and parameters.convexity) or voxels < 2 * smallest:
        return _by_necks(crop, *given, filled)
    others, torn = None, open_share(crop, filled, cut)
    if torn > TORN:
        # Most likely the lumens explain it, and the necks need not be looked at.
        others = _with_lumens(crop, *given)
        if _convex_voxels(others) >= 0.8 * sum(piece.voxels for piece in others) > 0:
            return others
    pieces = _by_necks(crop, *given, filled)
    total = sum(piece.voxels for piece in pieces)
    if _convex_voxels(pieces) >= 0.8 * total or any(_sparse(piece) for piece in pieces):
        return pieces
    if torn < WHOLE and np.count_nonzero(filled) > voxels:
        return pieces
    others = _with_lumens(crop, *given) if others is None else others
    if voxels < 4 * smallest and any(_large_and_bent(piece, smallest) for piece in others):
        # Too little membrane for a shell beside something else: a part of a bent shell it is.
        return pieces
    # A ragged mask has a few pores that look like lumens too: they must explain a share of it.
    least = max(1.2 * _convex_voxels(pieces), LUMINAL * total)
    return others if _convex_voxels(others) > least else pieces


def _convex_voxels(pieces: list[Piece]) -> int:
    """Count the voxels that nearly convex pieces explain."""
    return sum(piece.voxels for piece in pieces if piece.solidity >= CONVEX)


def _large_and_bent(piece: Piece, smallest: float) -> bool:
    return piece.voxels >= smallest and piece.solidity < CONVEX


def _sparse(piece: Piece) -> bool:
    """Tell a wide thin sheet or net, which fills almost nothing of its hull."""
    return piece.solidity < 0.05 and piece.origin == "sheet"


def _by_necks(crop, start, number, edge, parameters, smallest, filled=None) -> list[Piece]:
    """Fill one component, judge it and split it where necks say so."""
    if filled is None:
        filled = fill_slices(crop) if parameters.fill else crop
    gained = int(np.count_nonzero(filled)) - int(np.count_nonzero(crop))
    how = "slices" if gained else "none"
    if np.count_nonzero(filled) < smallest:
        # A speck, which is dropped and counted.
        return [Piece(start, filled, 0.0, "whole", number, 1.0, how, gained)]
    if gained and parameters.convexity:
        shared = find_shared_walls(crop, filled, smallest)
        if shared is not None:
            edge = shared if edge is None else edge | shared
    solidity = digital_solidity(filled)
    solid = solidity >= parameters.solidity and edge is None
    if not parameters.convexity or solid:
        return [Piece(start, filled, solidity, "whole", number, 1.0, how, gained)]
    if solidity < 0.05 and _is_sheet(filled, solidity):
        return [Piece(start, filled, solidity, "sheet", number, 1.0, how, gained)]
    parts, necks, origins = split_at_necks(
        filled, parameters.solidity, parameters.neck, edge, smallest
    )
    pieces = []
    thin = 0
    for label, box in enumerate(ndimage.find_objects(parts), start=1):
        piece = parts[box] == label
        place = tuple(a + side.start for a, side in zip(start, box, strict=True))
        extra = int(np.count_nonzero(piece & ~crop[box]))
        part_solidity = digital_solidity(piece)
        origin = "sheet" if _is_sheet(piece, part_solidity) else origins[label]
        thin += np.count_nonzero(piece) if origin == "sheet" and part_solidity < 0.1 else 0
        fill = how if extra else "none"
        pieces.append(Piece(place, piece, part_solidity, origin, number, necks[label], fill, extra))
    if len(pieces) > 1 and thin > 0.9 * np.count_nonzero(filled):
        # Thin parts of a bent membrane: necks mean nothing there.
        return [Piece(start, filled, solidity, "sheet", number, 1.0, how, gained)]
    return pieces


def _is_sheet(mask: np.ndarray, solidity: float) -> bool:
    """Tell sheets and nets, whose hull means nothing: hollow hull, thin everywhere."""
    return solidity < 0.4 and _spread(mask, WIDE)
