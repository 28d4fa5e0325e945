"""Objects of a ragged map: every one at the level of the map that shows it best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import cc3d
import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

from tomocensus.cluster.necks import Basins, find_basins
from tomocensus.cluster.pieces import Piece
from tomocensus.cluster.shells import fill_slices
from tomocensus.cluster.smoothing import chances, smooth, widened
from tomocensus.cluster.solidity import digital_solidity, reaches_solidity
from tomocensus.distances import distance_inside
from tomocensus.parallel import ahead

# Probabilities at which a ragged map is cut; closer where networks saturate.
LEVELS = (0.35, 0.5, 0.65, 0.75, 0.85, 0.92, 0.96)
# Levels from one on whose surfaces tell together how deep a voxel lies.
TOGETHER = 4
# Least score of an object, 0-1: below it nothing is better than something.
LEAST = 0.1
# Part of the object voxels in one component from which objects and noise have grown together.
PERCOLATING = 0.5
# Voxels around an object that its contrast is measured in.
RIM = 2
# A union of basins is looked at where it is at least this solid, before it is opened.
SOLID = 0.5
# By how much a union grows until it is looked at again.
GROWTH = 1.3
# What sticks out of an object and is thinner than this part of it is a bridge or noise.
THIN = 0.5
# Part of the smaller of two chosen objects that they may share.
SHARED = 0.2
# Probabilities are told apart up to here from 0 and 1.
CERTAIN = 0.01
# Part of a volume that the boxes of all unions which threads work on have together: one over this.
IN_THREADS = 4
# Smaller overlaps (IoU) say nothing of how stable a candidate is.
SAME = 0.05


@dataclass
class Candidate:
    """What may be an object: a union of basins of one level, without its bridges."""

    box: tuple[slice, slice, slice]
    packed: np.ndarray
    voxels: int
    gained: int
    level: int
    solidity: float
    contrast: float
    neck: float

    @property
    def mask(self) -> np.ndarray:
        """Its voxels in its box."""
        shape = tuple(side.stop - side.start for side in self.box)
        bits = np.unpackbits(self.packed, count=int(np.prod(shape)))
        return bits.reshape(shape).astype(bool)


def reaches_across(box: tuple, shape: tuple[int, ...]) -> bool:
    """Tell whether a box reaches through nearly all of a volume in every direction."""
    return all(side.stop - side.start >= 0.9 * n for side, n in zip(box, shape, strict=True))


def percolates(runs) -> bool:
    """Tell whether one component holds most object voxels and spans the volume.

    Then objects and noise have grown together into one sponge, and a threshold parts nothing.

    Parameters
    ----------
    runs : tomocensus.cluster.labelling.Runs
        Of the components.
    """
    if not runs.count:
        return False
    voxels = runs.voxels()
    largest = int(voxels.argmax())
    inside = reaches_across(runs.boxes()[largest], runs.shape)
    return inside and bool(voxels[largest] >= PERCOLATING * voxels.sum())


def part_by_levels(
    crop, start, number, probability, parameters, smallest, threads=1
) -> list[Piece]:
    """Turn one ragged component into pieces, each cut at a level of its own.

    Parameters
    ----------
    crop : numpy.ndarray
        Bool, the component at the lowest of `LEVELS` in its box.
    start : tuple of int
        Where that lies in the volume (z, y, x).
    number : int
        The component's.
    probability : numpy.ndarray
        Map of the whole volume, of which only the box with some room is read; so the result does
        not depend on how large a part of the volume is in memory.
    parameters : ClusterParameters
        See there.
    smallest : float
        Voxels.
    threads : int
        Candidates are described in parallel; the result does not depend on it.

    Returns
    -------
    list of Piece
        None at all, where nothing in the component is like an object.
    """
    if np.count_nonzero(crop) < smallest:
        # A speck, which is dropped and counted.
        return [Piece(start, crop, 0.0, "whole", number, 1.0, "none", 0)]
    box = tuple(slice(a, a + n) for a, n in zip(start, crop.shape, strict=True))
    wide, inner = widened(box, probability.shape, RIM)
    smoothed = _smooth_logits(probability, wide)
    mask = np.zeros(smoothed.shape, bool)
    mask[inner] = crop
    found = find_candidates(smoothed, mask, smallest, parameters.fill, threads)
    chosen = choose(found, scores(found), smoothed.shape)
    pieces = []
    for one in (found[index] for index in chosen):
        place = tuple(a.start + b.start for a, b in zip(one.box, wide, strict=True))
        origin, neck = ("split", one.neck) if len(chosen) > 1 else ("whole", 1.0)
        fill = "slices" if one.gained else "none"
        given = (one.mask, one.solidity, origin, number, neck, fill, one.gained)
        pieces.append(Piece(place, *given))
    return pieces


def _smooth_logits(probability: np.ndarray, box: tuple) -> np.ndarray:
    """Return a box of the map, smoothed by one voxel where networks sum up evidence: by logits."""
    wide, inner = widened(box, probability.shape, 4)
    chance = np.clip(chances(probability[wide]), CERTAIN, 1 - CERTAIN)
    return expit(smooth(logit(chance), 1.0)[inner])


def find_candidates(smoothed, mask, smallest=1.0, fill=True, threads=1) -> list[Candidate]:
    """Return all that may be objects at any of `LEVELS`.

    Parameters
    ----------
    smoothed : numpy.ndarray
        Float 0-1, ``(nz, ny, nx)``.
    mask : numpy.ndarray
        Bool, same shape: voxels that count.
    smallest : float
        Voxels of the smallest candidate.
    fill : bool
        Judge shells by what they enclose.
    threads : int
        As above.

    Returns
    -------
    list of Candidate
        Lower levels first.
    """
    found: list[Candidate] = []
    depths: list[np.ndarray] = []
    for index, level in enumerate(LEVELS):
        # Every level's depths serve several times, and are kept in half of their memory.
        fresh = LEVELS[index + len(depths) : index + TOGETHER]
        depths += [_depth(mask & (smoothed >= higher)).astype(np.float16) for higher in fresh]
        describe = partial(_candidate, level=index, depth=depths[0], smoothed=smoothed, fill=fill)
        unions = unions_of(_together(depths, mask & (smoothed >= level)), smallest)
        made = _described(unions, describe, mask.size, threads)
        found += [one for one in made if one.voxels >= smallest]
        del depths[0]
    return found


def _together(depths: list[np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Return the mean depth of several levels within a mask.

    A bridge that only the lowest one shows is shallow, and the others even the ragged surface.
    """
    mean = np.zeros(mask.shape, np.float32)
    for one in depths:
        mean += one
    mean /= np.float32(len(depths))
    mean *= mask
    return mean


def _depth(mask: np.ndarray) -> np.ndarray:
    """Return the distance to the surface in voxels, lightly smoothed."""
    return smooth(distance_inside(mask), 1.0)


class _Unions(Basins):
    """Basins that are merged until they are one; what is solid on the way is remembered."""

    def __init__(self, basins: np.ndarray, depth: np.ndarray, count: int, smallest: float):
        super().__init__(basins, depth, count)
        self.smallest = smallest
        self.seen: list[tuple[list[int], float]] = []
        # Voxels of the union as it was last looked at, by its label; none yet.
        self.looked: dict[int, int] | None = None
        self.merge_shallow(smallest)
        self.looked = {}
        for label in self.members:
            self._look(label)
        self.merge(lambda graph, a, b: True, again=False)

    def _join(self, a, b):
        """Make `b` part of `a`, and look at the union."""
        super()._join(a, b)
        if self.looked is None:
            return
        self.looked[a] = max(self.looked[a], self.looked.pop(b))
        if self.voxels[a] >= GROWTH * self.looked[a]:
            self._look(a)

    def _look(self, label):
        """Remember a union that is solid, and large enough."""
        voxels = self.looked[label] = int(self.voxels[label])
        if voxels >= self.smallest and reaches_solidity(self.points(label), voxels, SOLID):
            necks = [self.ratio(label, other) for other in self.saddle[label]]
            self.seen.append((list(self.members[label]), float(max(necks, default=0.0))))


def unions_of(depth, smallest=1.0) -> Iterator[tuple[np.ndarray, tuple, float]]:
    """Merge basins over the widest neck first until all are one; yield the solid unions.

    Parameters
    ----------
    depth : numpy.ndarray
        float32, distance to the surface, 0 outside.
    smallest : float
        Voxels; smaller basins are part of a neighbour from the start.

    Yields
    ------
    tuple
        Mask in its box, the box, and the widest neck to a neighbour over the thinner one's width,
        0 where there is none.
    """
    basins, count = find_basins(depth)
    if not count:
        return
    graph = _Unions(basins, depth, count, smallest)
    seen, places = graph.seen, graph.boxes
    # As large as the volume, and no longer wanted.
    del graph, depth
    inside = np.zeros(count + 1, bool)
    for members, neck in seen:
        boxes = [places[member - 1] for member in members]
        box = tuple(
            slice(min(side.start for side in sides), max(side.stop for side in sides))
            for sides in zip(*boxes, strict=True)
        )
        inside[members] = True
        yield inside[basins[box]], box, neck
        inside[members] = False


def _described(unions, describe, size: int, threads: int) -> Iterator[Candidate]:
    """Describe unions in threads, in their order; large ones one at a time, for they need memory.

    `size`: voxels of all.
    """
    if threads < 2:
        return map(describe, unions)
    large = size / (IN_THREADS * threads)
    # The large ones are described as they are asked for, while threads work on those before.
    some = (describe(union) if union[0].size > large else union for union in unions)
    return ahead(
        lambda one: one if isinstance(one, Candidate) else describe(one), some, 4 * threads, threads
    )


def _candidate(union, level, depth, smoothed, fill) -> Candidate:
    """Describe one union, filled and without its bridges."""
    own, box, neck = union
    whole = fill_slices(own) if fill else own
    filled = np.count_nonzero(whole) > np.count_nonzero(own)
    kept = without_bridges(whole, _depth(whole) if filled else depth[box].astype(np.float32) * own)
    within = ndimage.find_objects(kept.astype(np.uint8))[0]
    kept, own = kept[within], own[within]
    place = tuple(
        slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, within, strict=True)
    )
    voxels, gained = (int(np.count_nonzero(one)) for one in (kept, kept & ~own))
    contrast = _contrast(kept, kept & own, place, smoothed)
    packed = np.packbits(kept)
    return Candidate(place, packed, voxels, gained, level, digital_solidity(kept), contrast, neck)


def _contrast(mask, own, box, smoothed) -> float:
    """Return by how much the map is higher where it is object (`own`) than in the mask's rim."""
    wide, inner = widened(box, smoothed.shape, RIM)
    seen, within = smoothed[wide], np.zeros([side.stop - side.start for side in wide], bool)
    within[inner] = mask
    rim = _rim(within, RIM)
    if not own.any() or not rim.any():
        return 0.0
    return float(seen[inner][own].mean(dtype=np.float64) - seen[rim].mean(dtype=np.float64))


def without_bridges(mask: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return an object without what sticks out and is thinner than `THIN` of it.

    Parameters
    ----------
    mask : numpy.ndarray
        Bool, ``(nz, ny, nx)``.
    depth : numpy.ndarray
        Distance to the surface, voxels.
    """
    reach = THIN * depth.max()
    core = cc3d.largest_k(depth >= reach, 1, connectivity=26) > 0
    if not core.any():
        return mask
    return mask & (distance_inside(~core, border=False, reach=reach + 1) <= reach + 0.5)


def _rim(mask: np.ndarray, reach: int) -> np.ndarray:
    """Return the voxels around a mask that `reach` steps to neighbours by faces get to."""
    near = mask.copy()
    for _ in range(reach):
        before = near.copy()
        for axis in range(3):
            to, there = np.swapaxes(near, 0, axis), np.swapaxes(before, 0, axis)
            to[1:] |= there[:-1]
            to[:-1] |= there[1:]
    return near & ~mask


def scores(found: list[Candidate]) -> np.ndarray:
    """Return how much each candidate is like an object, 0-1.

    Solidity times stability times the square root of the contrast with the rim. Stability is the
    mean over the other levels of the best overlap (IoU) with a candidate there, as of maximally
    stable regions (Matas et al., BMVC 2002).
    """
    best = np.zeros((len(found), len(LEVELS)))
    for a, b, overlap in _overlaps(found):
        best[a, found[b].level] = max(best[a, found[b].level], overlap)
        best[b, found[a].level] = max(best[b, found[a].level], overlap)
    stable = best.sum(axis=1) / (len(LEVELS) - 1)
    solid = np.array([one.solidity for one in found])
    contrast = np.array([max(one.contrast, 0.0) for one in found])
    return solid * stable * np.sqrt(contrast)


def _overlaps(found: list[Candidate]) -> Iterator[tuple[int, int, float]]:
    """Yield pairs of candidates of different levels and their overlap (IoU)."""
    low = np.array([[side.start for side in one.box] for one in found]).reshape(-1, 3)
    high = np.array([[side.stop for side in one.box] for one in found]).reshape(-1, 3)
    voxels = np.array([one.voxels for one in found])
    level = np.array([one.level for one in found])
    for a, one in enumerate(found):
        mask = one.mask
        sides = np.minimum(high[a], high[a + 1 :]) - np.maximum(low[a], low[a + 1 :])
        # No more than this can be shared.
        most = np.minimum(np.maximum(sides, 0).prod(axis=1), np.minimum(voxels[a + 1 :], voxels[a]))
        able = most >= SAME * np.maximum(voxels[a + 1 :], voxels[a])
        for b in a + 1 + np.flatnonzero(able & (level[a + 1 :] != level[a])):
            from_, to = np.maximum(low[a], low[b]), np.minimum(high[a], high[b])
            both = mask[_within(from_, to, low[a])] & found[b].mask[_within(from_, to, low[b])]
            shared = np.count_nonzero(both)
            overlap = shared / (voxels[a] + voxels[b] - shared)
            if overlap >= SAME:
                yield a, int(b), overlap


def _within(low, high, start) -> tuple[slice, ...]:
    """Return the box between two corners as seen from `start`."""
    return tuple(slice(a - c, b - c) for a, b, c in zip(low, high, start, strict=True))


def choose(found: list[Candidate], score, shape: tuple, least: float = LEAST) -> list[int]:
    """Choose the candidates with the best scores of which none shares much with a better one.

    Parameters
    ----------
    found : list of Candidate
        In the volume of `shape`.
    score : numpy.ndarray
        Of each.
    shape : tuple of int
        The volume's.
    least : float
        Lower scores are no objects.

    Returns
    -------
    list of int
        Indices of the chosen candidates, rising.
    """
    taken = np.zeros(shape, np.int32)
    sizes, chosen = [0], []
    for index in np.argsort(-np.asarray(score), kind="stable"):
        if score[index] < least:
            break
        one, mask = found[index], found[index].mask
        shared = np.bincount(taken[one.box][mask])
        shared[0] = 0
        limits = SHARED * np.minimum(one.voxels, sizes[: len(shared)])
        if np.any(shared > limits):
            continue
        chosen.append(int(index))
        taken[one.box][mask] = len(sizes)
        sizes.append(one.voxels)
    return sorted(chosen)
