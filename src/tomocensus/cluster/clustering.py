"""The clustering stage: threshold, label, fill, judge by solidity, split at necks, merge back."""

from __future__ import annotations

import heapq
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import cc3d
import edt
import fill_voids
import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from tomocensus.cluster.solidity import digital_solidity, lattice_hull, row_extremes

COLUMNS = (
    "instance",
    "voxels",
    "volume_angstrom3",
    "solidity",
    "origin",
    "component",
    "neck_ratio",
    "fill",
    "filled_voxels",
    "touches_border",
    "mean_probability",
    "score",
)


@dataclass(frozen=True)
class ClusterParameters:
    """What decides where one object ends.

    Parameters
    ----------
    threshold : float or "auto"
        Probability (0-1) from which a voxel is object; auto is Otsu's of the map.
    minimum_volume : float
        Å³; smaller objects are specks and dropped.
    solidity : float
        A component at least this solid is one object.
    neck : float
        Two parts stay one where the neck's width is at least this part of the thinner one's.
    fill : bool
        Fill shells slice by slice.
    convexity : bool
        False: connectivity alone.
    """

    threshold: float | str = 0.5
    minimum_volume: float = 50_000.0
    solidity: float = 0.93
    neck: float = 0.8
    fill: bool = True
    convexity: bool = True


@dataclass
class Clustering:
    """Labels (int32, 0 background), one row of the table for each, and totals in facts."""

    labels: np.ndarray
    table: pd.DataFrame
    facts: dict = field(default_factory=dict)


@dataclass
class _Piece:
    """One instance in its crop."""

    start: tuple[int, int, int]
    mask: np.ndarray
    solidity: float
    origin: str
    component: int
    neck_ratio: float
    fill: str
    filled_voxels: int


def decode_probability(data: np.ndarray, scale: float | None = None) -> np.ndarray:
    """Turn another program's map into float32 probabilities.

    Parameters
    ----------
    data : numpy.ndarray
        Binary mask or map.
    scale : float, optional
        The value that means certainty: 1, 100 or 255. By default judged from the largest value.
    """
    if scale is None:
        largest = float(np.max(data)) if data.size else 1.0
        scale = 1.0 if largest <= 1 else 100.0 if largest <= 100 else 255.0
    return np.clip(np.asarray(data, dtype=np.float32) / np.float32(scale), 0, 1)


def cluster(
    probability: np.ndarray,
    voxel_size: float,
    parameters: ClusterParameters | None = None,
    boundary: np.ndarray | None = None,
    membrane: np.ndarray | None = None,
    threads: int = 1,
    mask: np.ndarray | None = None,
) -> Clustering:
    """Group object voxels into instances.

    Parameters
    ----------
    probability : numpy.ndarray
        ``(nz, ny, nx)``; floats 0-1, or integers in per cent.
    voxel_size : float
        Å.
    parameters : ClusterParameters, optional
        Defaults where missing.
    boundary : numpy.ndarray, optional
        Probability of an instance's outline, same scale; lowers the depth of what it crosses.
    membrane : numpy.ndarray, optional
        Not used yet.
    threads : int
        Components are handled in parallel; the result does not depend on it.
    mask : numpy.ndarray, optional
        Voxels outside are background.

    Returns
    -------
    Clustering
        Labels 1..N in the order of their first voxel.
    """
    parameters = parameters or ClusterParameters()
    chance, binary = _chances(probability)
    smooth = chance if binary else ndimage.gaussian_filter(chance, 1.0)
    threshold = parameters.threshold
    if threshold == "auto":
        threshold = float(threshold_otsu(smooth)) if smooth.min() < smooth.max() else 0.5
    objects = smooth >= threshold if threshold > 0 else smooth > 0
    if mask is not None:
        objects &= mask
    edge = None if boundary is None else ndimage.gaussian_filter(_chances(boundary)[0], 0.7)
    components = cc3d.connected_components(objects, connectivity=26)
    boxes = ndimage.find_objects(components)
    smallest = max(1.0, parameters.minimum_volume / voxel_size**3)

    def work(number: int) -> list[_Piece]:
        box = boxes[number - 1]
        crop = components[box] == number
        start = tuple(side.start for side in box)
        return _separate(
            crop, start, number, parameters, None if edge is None else edge[box], smallest
        )

    numbers = range(1, len(boxes) + 1)
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(work, numbers))
    else:
        results = [work(number) for number in numbers]
    pieces = [piece for result in results for piece in result]
    kept = [piece for piece in pieces if np.count_nonzero(piece.mask) >= smallest]
    labels = _paint(kept, objects.shape)
    table = _table(labels, kept, chance, objects, voxel_size)
    facts = {
        "threshold": float(threshold),
        "object_voxels": int(np.count_nonzero(objects)),
        "components": len(boxes),
        "dropped_specks": len(pieces) - len(kept),
        "dropped_voxels": int(np.count_nonzero(objects & (labels == 0))),
        "filled_voxels": int(np.count_nonzero((labels > 0) & ~objects)),
        "instances": len(table),
    }
    return Clustering(labels, table, facts)


def _chances(data: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return a map as float32 0-1 and whether it is binary."""
    data = np.asarray(data)
    if data.dtype == bool:
        return data.astype(np.float32), True
    chance = data.astype(np.float32)
    if data.dtype.kind in "iu":
        chance /= 100
    return chance, bool(np.all((chance == 0) | (chance == 1)))


def fill_slices(mask: np.ndarray) -> np.ndarray:
    """Fill closed rings in every XY slice: shells whose caps the missing wedge took become solid.

    Parameters
    ----------
    mask : numpy.ndarray
        Boolean, ``(nz, ny, nx)``.
    """
    filled = np.zeros_like(mask)
    for z in range(mask.shape[0]):
        if mask[z].any():
            filled[z] = fill_voids.fill(np.ascontiguousarray(mask[z]))
    return filled


def close_torn(mask: np.ndarray, filled: np.ndarray, radius: int = 3) -> np.ndarray | None:
    """Fill a shell whose slices are torn open, or return None where it is no torn shell.

    Closing everything would bridge neighbours that only nearly touch, so the closed filling
    counts only where it gains a lumen: at least half of what slice-wise filling has.

    Parameters
    ----------
    mask, filled : numpy.ndarray
        Boolean, one component before and after `fill_slices`.
    radius : int
        Half of the widest tear in voxels.

    Returns
    -------
    numpy.ndarray or None
        The filled shell; contains `filled`.
    """
    margin = radius + 1
    padded = np.pad(mask, margin)
    near = edt.edt(~padded, black_border=False) <= radius
    closed = edt.edt(near, black_border=False) > radius
    inner = (slice(margin, -margin),) * 3
    torn = fill_slices((closed | padded)[inner])
    lumen = np.count_nonzero(torn & ~filled & ~closed[inner])
    if lumen < 0.5 * np.count_nonzero(filled):
        return None
    # What closing bridged outside the shell is given back: the lumen and the tears stay.
    lumens = ndimage.binary_dilation(torn & ~filled & ~closed[inner], iterations=radius)
    return filled | (torn & (lumens | ~closed[inner]))


def _separate(crop, start, number, parameters, edge, smallest) -> list[_Piece]:
    """Judge one component and split it where necks say so."""
    filled = fill_slices(crop) if parameters.fill else crop
    how = "slices"
    solidity = digital_solidity(filled)
    if parameters.fill and parameters.convexity and solidity < 0.6:
        torn = close_torn(crop, filled)
        if torn is not None:
            filled, how, solidity = torn, "closing", digital_solidity(torn)
    gained = int(np.count_nonzero(filled & ~crop))
    solid = solidity >= parameters.solidity and edge is None
    if not parameters.convexity or solid:
        how = how if gained else "none"
        return [_Piece(start, filled, solidity, "whole", number, 1.0, how, gained)]
    parts, necks, origins = split_at_necks(
        filled, parameters.solidity, parameters.neck, edge, smallest
    )
    pieces = []
    for label, box in enumerate(ndimage.find_objects(parts), start=1):
        piece = parts[box] == label
        place = tuple(a + side.start for a, side in zip(start, box, strict=True))
        extra = int(np.count_nonzero(piece & ~crop[box]))
        solidity = digital_solidity(piece)
        origin = "sheet" if _is_sheet(piece, solidity) else origins[label]
        fill = how if extra else "none"
        pieces.append(_Piece(place, piece, solidity, origin, number, necks[label], fill, extra))
    return pieces


def _is_sheet(mask: np.ndarray, solidity: float) -> bool:
    """Tell sheets and nets, whose hull means nothing: hollow hull, thin everywhere."""
    if solidity >= 0.4:
        return False
    thickness = float(edt.edt(np.pad(mask, 1), black_border=False).max())
    return np.count_nonzero(mask) > 500 * thickness**3


def depth_map(mask: np.ndarray, edge: np.ndarray | None = None) -> np.ndarray:
    """Return each voxel's distance to the surface in voxels, lightly smoothed.

    Parameters
    ----------
    mask : numpy.ndarray
        Boolean, one component; the border of the array is no surface of the object beyond it.
    edge : numpy.ndarray, optional
        Probability (0-1) of an outline. A predicted wall inside the mask counts like its surface.
    """
    inner = (slice(1, -1),) * 3
    depth = edt.edt(np.pad(mask, 1), black_border=False)[inner]
    if edge is not None:
        wall = mask & (edge >= 0.5)
        if wall.any():
            # The surface itself is predicted as outline too, one voxel deep: hence + 1.
            depth = np.minimum(depth, edt.edt(np.pad(~wall, 1, constant_values=True))[inner] + 1)
    return ndimage.gaussian_filter(depth, 0.7) * mask


def split_at_necks(mask, solidity=0.93, neck=0.8, edge=None, smallest=1.0):
    """Split one component into convex parts at its necks.

    Basins of the distance to the surface are merged again, the widest neck first, while the union
    is solid or the neck between them is wide compared with the thinner of the two.

    Parameters
    ----------
    mask : numpy.ndarray
        Boolean, one component.
    solidity : float
        A union at least this solid is one object.
    neck : float
        Ratio of the neck's to the thinner part's half-width from which two parts are one.
    edge : numpy.ndarray, optional
        Probability of an outline, 0-1; makes necks narrower where it crosses them.
    smallest : float
        Voxels; a smaller part is never cut off.

    Returns
    -------
    parts : numpy.ndarray
        int32 labels 1..N of the parts.
    necks : dict
        Ratio of the widest neck by which each part touches another, 1 for a whole component.
    origins : dict
        ``whole``, ``split`` or ``merged`` for each part.
    """
    depth = depth_map(mask, edge)
    peaks = (ndimage.maximum_filter(depth, size=3) == depth) & mask & (depth > 0)
    seeds, count = ndimage.label(peaks, np.ones((3, 3, 3)))
    if count <= 1:
        return mask.astype(np.int32), {1: 1.0}, {1: "whole"}
    around = ndimage.generate_binary_structure(3, 3)
    basins = watershed(-depth, seeds, connectivity=around, mask=mask).astype(np.int32)
    graph = _Basins(basins, depth)
    graph.merge(solidity, neck, smallest, walls=edge is not None)
    return graph.result()


def _saddles(basins: np.ndarray, depth: np.ndarray) -> dict[tuple[int, int], float]:
    """Return the largest depth at which each pair of neighbouring basins meets."""
    lows, highs, heights = [], [], []
    for offset in NEIGHBOURS:
        here, there = _shifted(offset)
        a, b = basins[here], basins[there]
        touching = (a != b) & (a > 0) & (b > 0)
        lows.append(np.minimum(a, b)[touching])
        highs.append(np.maximum(a, b)[touching])
        heights.append(np.minimum(depth[here], depth[there])[touching])
    low, high, height = (np.concatenate(values) for values in (lows, highs, heights))
    keys = low.astype(np.int64) << 32 | high
    order = np.lexsort((height, keys))
    last = order[np.append(keys[order][1:] != keys[order][:-1], True)] if len(order) else order
    return {(int(low[i]), int(high[i])): float(height[i]) for i in last}


# Half of the 26 neighbours; the other half sees the same pairs.
NEIGHBOURS = [
    (z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) > (0, 0, 0)
]


def _shifted(offset):
    """Return the two slices that lay a volume over itself shifted by `offset`."""
    here = tuple(slice(max(0, -step), -step if step > 0 else None) for step in offset)
    there = tuple(slice(max(0, step), step if step < 0 else None) for step in offset)
    return here, there


class _Basins:
    """Basins of one component as a graph; edges are the saddles between neighbours."""

    def __init__(self, basins: np.ndarray, depth: np.ndarray):
        self.basins = basins
        count = int(basins.max())
        self.peak = ndimage.maximum(depth, basins, np.arange(count + 1))
        self.voxels = np.bincount(basins.ravel(), minlength=count + 1)
        self.vertices, self.lattice = {}, {}
        for label, box in enumerate(ndimage.find_objects(basins), start=1):
            points = row_extremes(basins[box] == label) + [side.start for side in box]
            self.lattice[label], self.vertices[label] = lattice_hull(points)
        self.members = {label: [label] for label in self.vertices}
        self.saddle: dict[int, dict[int, float]] = {label: {} for label in self.vertices}
        for (a, b), height in _saddles(basins, depth).items():
            self.saddle[a][b] = self.saddle[b][a] = height

    def ratio(self, a: int, b: int) -> float:
        """Return the neck's width over the thinner part's."""
        return self.saddle[a][b] / max(min(self.peak[a], self.peak[b]), 1e-6)

    def merge(self, solidity: float, neck: float, smallest: float, walls: bool) -> None:
        """Merge greedily, the widest neck first, until no pair may be merged."""
        pairs = ((a, b) for a, others in self.saddle.items() for b in others if a < b)
        heap = [(-self.ratio(a, b), a, b) for a, b in pairs]
        heapq.heapify(heap)
        while heap:
            ratio, a, b = heapq.heappop(heap)
            if b not in self.saddle.get(a, {}) or self.ratio(a, b) != -ratio:
                continue
            union = self._one(a, b, solidity, neck, smallest, walls)
            if union is None:
                continue
            self._join(a, b, *union)
            # A merged part may suit neighbours that it did not suit before: try them all again.
            for other in self.saddle[a]:
                low, high = min(a, other), max(a, other)
                heapq.heappush(heap, (-self.ratio(low, high), low, high))

    def _one(self, a, b, solidity, neck, smallest, walls):
        """Return the union's hull where `a` and `b` are one object, None where they are two."""
        thinner = min(self.peak[a], self.peak[b])
        ratio = self.ratio(a, b)
        points = np.concatenate([self.vertices[a], self.vertices[b]])
        union = lattice_hull(points)
        shallow = thinner - self.saddle[a][b] < max(0.75, 0.15 * thinner)
        tiny = min(self.voxels[a], self.voxels[b]) < smallest
        if shallow or tiny:
            return union
        solid = (self.voxels[a] + self.voxels[b]) / max(union[0], 1) >= solidity
        if solid and not (walls and ratio < 0.5):
            return union
        # Parts that are not convex themselves show that the object bends or branches: the neck
        # has to be narrower to be believed.
        shape = min(self.voxels[part] / max(self.lattice[part], 1) for part in (a, b))
        needed = neck * min(1.0, max(0.6, shape / 0.9))
        return union if ratio >= needed else None

    def _join(self, a, b, lattice, vertices):
        """Make `b` part of `a`."""
        self.lattice[a], self.vertices[a] = lattice, vertices
        self.voxels[a] += self.voxels[b]
        self.peak[a] = max(self.peak[a], self.peak[b])
        self.members[a] += self.members.pop(b)
        for other, height in self.saddle.pop(b).items():
            del self.saddle[other][b]
            if other != a:
                height = max(height, self.saddle[a].get(other, 0.0))
                self.saddle[a][other] = self.saddle[other][a] = height

    def result(self):
        """Return labels 1..N, widest neck and origin of each."""
        number = np.zeros(len(self.voxels), np.int32)
        necks, origins = {}, {}
        for new, old in enumerate(sorted(self.members), start=1):
            number[self.members[old]] = new
            ratios = [self.ratio(old, other) for other in self.saddle[old]]
            necks[new] = float(max(ratios, default=1.0))
            joined = "merged" if len(self.members[old]) > 1 else "whole"
            origins[new] = "split" if len(self.members) > 1 else joined
        return number[self.basins], necks, origins


def _paint(pieces: list[_Piece], shape) -> np.ndarray:
    """Paint the largest first, so that nested objects stay; number by first voxel."""
    labels = np.zeros(shape, np.int32)
    order = sorted(
        range(len(pieces)), key=lambda i: (-np.count_nonzero(pieces[i].mask), pieces[i].start)
    )
    for index in order:
        piece = pieces[index]
        box = tuple(slice(a, a + n) for a, n in zip(piece.start, piece.mask.shape, strict=True))
        labels[box][piece.mask] = index + 1
    flat = labels.ravel()
    present, first = np.unique(flat, return_index=True)
    first = first[present > 0]
    present = present[present > 0]
    number = np.zeros(len(pieces) + 1, np.int32)
    number[present[np.argsort(first)]] = np.arange(1, len(present) + 1)
    reordered = [None] * len(present)
    for old, new in enumerate(number):
        if new:
            reordered[new - 1] = pieces[old - 1]
    pieces[:] = reordered
    return number[labels]


def _table(labels, pieces, chance, objects, voxel_size) -> pd.DataFrame:
    """Describe every instance; probabilities are those of its unfilled voxels."""
    count = len(pieces)
    index = np.arange(1, count + 1)
    voxels = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    border = np.zeros(count + 1, bool)
    for axis in range(3):
        for side in (0, -1):
            border[np.unique(np.take(labels, side, axis=axis))] = True
    own = labels * objects
    total = np.bincount(own.ravel(), weights=chance.ravel(), minlength=count + 1)[1:]
    mean = total / np.maximum(np.bincount(own.ravel(), minlength=count + 1)[1:], 1)
    table = pd.DataFrame(
        {
            "instance": index,
            "voxels": voxels,
            "volume_angstrom3": voxels * float(voxel_size) ** 3,
            "solidity": [piece.solidity for piece in pieces],
            "origin": [piece.origin for piece in pieces],
            "component": [piece.component for piece in pieces],
            "neck_ratio": [piece.neck_ratio for piece in pieces],
            "fill": [piece.fill for piece in pieces],
            "filled_voxels": [piece.filled_voxels for piece in pieces],
            "touches_border": border[1:],
            "mean_probability": mean,
        }
    )
    # A cut through a wide neck is a doubtful one: half the score at a ratio of 1.
    doubt = np.where(table["origin"] == "split", 0.5 * table["neck_ratio"].clip(0, 1), 0.0)
    table["score"] = table["mean_probability"] * (1 - doubt)
    return table[list(COLUMNS)]


def cluster_labels(labels: np.ndarray, voxel_size: float) -> Clustering:
    """Take over another program's labelmap: number it 1..N and describe its objects.

    Parameters
    ----------
    labels : numpy.ndarray
        Integers (or whole floats), 0 background.
    voxel_size : float
        Å.
    """
    given = np.rint(np.asarray(labels)).astype(np.int64)
    given[given < 0] = 0
    names, inverse = np.unique(given, return_inverse=True)
    number = np.arange(len(names)) + (0 if len(names) and names[0] == 0 else 1)
    fresh = number[inverse].reshape(given.shape).astype(np.int32)
    pieces = []
    for label, box in enumerate(ndimage.find_objects(fresh), start=1):
        mask = fresh[box] == label
        start = tuple(side.start for side in box)
        solid = digital_solidity(mask)
        pieces.append(_Piece(start, mask, solid, "given", label, 1.0, "none", 0))
    ones = (fresh > 0).astype(np.float32)
    return Clustering(
        fresh, _table(fresh, pieces, ones, fresh > 0, voxel_size), {"instances": len(pieces)}
    )
