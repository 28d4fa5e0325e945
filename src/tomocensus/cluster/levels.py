"""Objects of a ragged map: every one at the level of the map that shows it best."""

from __future__ import annotations

from dataclasses import dataclass, field

import edt
import numpy as np
from scipy import ndimage

from tomocensus.cluster.necks import Basins, _one_object, find_basins
from tomocensus.cluster.pieces import Piece
from tomocensus.cluster.shells import fill_slices
from tomocensus.cluster.smoothing import smooth, smooth_box, widened
from tomocensus.cluster.solidity import digital_solidity

# Probabilities at which a ragged map is cut; closer where networks saturate.
LEVELS = (0.35, 0.5, 0.65, 0.75, 0.85, 0.92, 0.96)
# Levels from one on whose surfaces tell together how deep a voxel lies.
TOGETHER = 4
# Least score of an object, 0-1: below it nothing is better than something.
LEAST = 0.03
# Part of the object voxels in one component from which objects and noise have grown together.
PERCOLATING = 0.975
# Voxels around an object that its contrast is measured in.
RIM = 2
# A union of parts at least this solid is one object: ragged ones are never as solid as clean ones.
SOLID = 0.95


@dataclass
class Node:
    """What may be an object: a part of the map at one level, and how it lies among the others."""

    box: tuple[slice, slice, slice]
    packed: np.ndarray
    voxels: int
    solidity: float
    contrast: float
    neck: float
    parent: int = -1
    overlap: float = 0.0
    children: list[int] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its box."""
        return tuple(side.stop - side.start for side in self.box)

    @property
    def mask(self) -> np.ndarray:
        """Its voxels in its box."""
        bits = np.unpackbits(self.packed, count=int(np.prod(self.shape)))
        return bits.reshape(self.shape).astype(bool)


def spans(box: tuple, shape: tuple[int, ...]) -> bool:
    """Tell whether a box reaches through nearly all of a volume in every direction."""
    return all(side.stop - side.start >= 0.9 * n for side, n in zip(box, shape, strict=True))


def percolates(runs) -> bool:
    """Tell whether one component holds nearly all object voxels and spans the volume.

    Then objects and noise have grown together into one sponge, and a threshold parts nothing.

    Parameters
    ----------
    runs : tomocensus.cluster.labelling.Runs
        Of the components.
    """
    if not runs.count:
        return False
    voxels = np.bincount(runs.label, weights=runs.stop - runs.start)
    largest = int(voxels.argmax())
    inside = spans(runs.boxes()[largest - 1], runs.shape)
    return inside and bool(voxels[largest] >= PERCOLATING * voxels.sum())


def part_by_levels(crop, start, number, probability, parameters, smallest) -> list[Piece]:
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
    smoothed = smooth_box(probability, wide, 1.0)
    mask = np.zeros(smoothed.shape, bool)
    mask[inner] = crop
    nodes = find_nodes(smoothed, mask, smallest, parameters.neck, parameters.fill)
    chosen = choose(nodes, scores(nodes))
    pieces = []
    for node in (nodes[index] for index in chosen):
        own = node.mask
        filled = fill_slices(own) if parameters.fill else own
        gained = int(np.count_nonzero(filled)) - node.voxels
        place = tuple(a.start + b.start for a, b in zip(node.box, wide, strict=True))
        origin = "split" if len(chosen) > 1 else "whole"
        fill = "slices" if gained else "none"
        solidity = digital_solidity(filled)
        pieces.append(Piece(place, filled, solidity, origin, number, node.neck, fill, gained))
    return pieces


def find_nodes(smoothed, mask, smallest=1.0, neck=0.8, fill=True) -> list[Node]:
    """Return all that may be objects at any of `LEVELS`, each with its parent a level lower.

    Parameters
    ----------
    smoothed : numpy.ndarray
        Float 0-1, ``(nz, ny, nx)``.
    mask : numpy.ndarray
        Bool, same shape: voxels that count.
    smallest : float
        Voxels of the smallest node.
    neck : float
        As of :func:`tomocensus.cluster.necks.split_at_necks`.
    fill : bool
        Judge shells by what they enclose.

    Returns
    -------
    list of Node
        Lower levels first, so parents come before their children.
    """
    nodes: list[Node] = []
    before = np.zeros(mask.shape, np.int32)
    inside = np.where(mask, smoothed, np.float32(0))
    depths: list[np.ndarray] = []
    for index in range(len(LEVELS)):
        # Every level's depths serve several times.
        fresh = LEVELS[index + len(depths) : index + TOGETHER]
        depths += [_depth(inside >= level) for level in fresh]
        depth = np.mean(depths, axis=0) * (inside >= LEVELS[index])
        del depths[0]
        parts, necks = split_softly(depth, smallest, neck)
        first = len(nodes)
        number = np.zeros(parts.max() + 1, np.int32)
        for label, box in enumerate(ndimage.find_objects(parts), start=1):
            node = _node(parts, label, box, smoothed, smallest, necks[label], fill)
            if node is None:
                continue
            nodes.append(node)
            number[label] = len(nodes)
        labels = number[parts]
        _connect(nodes, first, labels, before)
        before = labels
    return nodes


def _depth(mask: np.ndarray) -> np.ndarray:
    """Return the distance to the surface in voxels, lightly smoothed."""
    wide = edt.edt(np.pad(mask, 1), black_border=False)
    return smooth(wide[1:-1, 1:-1, 1:-1], 1.0)


def split_softly(depth, smallest=1.0, neck=0.8) -> tuple[np.ndarray, dict[int, float]]:
    """Part the voxels from a level on at their necks, with the levels above as further evidence.

    Parameters
    ----------
    depth : numpy.ndarray
        float32, mean distance of each voxel to the surfaces of several levels, 0 outside the lowest
        of them: a bridge that only that level shows is shallow, and the others even its ragged rim.
    smallest : float
        Voxels; a smaller part is never cut off.
    neck : float
        As of :func:`tomocensus.cluster.necks.split_at_necks`.

    Returns
    -------
    parts : numpy.ndarray
        int32 labels 1..N.
    necks : dict
        Ratio of the widest neck by which each part touches another.
    """
    basins, count = find_basins(depth)
    if not count:
        return basins, {}
    graph = Basins(basins, depth, count)
    graph.merge_shallow(smallest)
    graph.merge(_one_object(SOLID, neck, walls=False))
    parts, necks, _ = graph.result()
    return parts, necks


def _node(parts, label, box, smoothed, smallest, neck, fill) -> Node | None:
    """Describe one part of a level; None for a speck."""
    wide, _ = widened(box, parts.shape, RIM)
    own = parts[wide] == label
    voxels = int(np.count_nonzero(own))
    if voxels < smallest:
        return None
    values, rim = smoothed[wide], _rim(own, RIM)
    inside = values[own].mean(dtype=np.float64)
    contrast = inside - values[rim].mean(dtype=np.float64) if rim.any() else 0.0
    solidity = digital_solidity(fill_slices(own) if fill else own)
    return Node(wide, np.packbits(own), voxels, solidity, contrast, neck)


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


def _connect(nodes, first, labels, before) -> None:
    """Give the nodes from `first` on the parent that most of their voxels lie in."""
    for index in range(first, len(nodes)):
        node = nodes[index]
        below = before[node.box][labels[node.box] == index + 1]
        if not below.any():
            continue
        counts = np.bincount(below)
        counts[0] = 0
        parent = int(counts.argmax())
        shared = int(counts[parent])
        if 2 * shared <= node.voxels:
            continue
        node.parent = parent - 1
        node.overlap = shared / (node.voxels + nodes[parent - 1].voxels - shared)
        nodes[parent - 1].children.append(index)


def scores(nodes: list[Node]) -> np.ndarray:
    """Return how much each node is like an object, 0-1.

    Solidity times stability times the square root of the contrast with the rim. Stability is the
    mean overlap (IoU) with what becomes of the node at the other levels, as of maximally stable
    regions (Matas et al., BMVC 2002); along a branch it is the product of the steps' overlaps.
    """
    lower, higher = np.zeros(len(nodes)), np.zeros(len(nodes))
    for index, node in enumerate(nodes):
        if node.parent >= 0:
            lower[index] = node.overlap * (1 + lower[node.parent])
    for index in range(len(nodes) - 1, -1, -1):
        steps = [nodes[c].overlap * (1 + higher[c]) for c in nodes[index].children]
        higher[index] = max(steps, default=0.0)
    stable = (lower + higher) / (len(LEVELS) - 1)
    solid = np.array([node.solidity for node in nodes])
    contrast = np.array([max(node.contrast, 0.0) for node in nodes])
    return solid * stable * np.sqrt(contrast)


def choose(nodes: list[Node], score: np.ndarray, least: float = LEAST) -> list[int]:
    """Choose nodes, none within another, so that the sum of their scores above `least` is greatest.

    By dynamic programming from the leaves (Arteta et al., MICCAI 2012).

    Parameters
    ----------
    nodes : list of Node
        Parents before their children.
    score : numpy.ndarray
        Of each.
    least : float
        What a node costs.

    Returns
    -------
    list of int
        Indices of the chosen nodes, rising.
    """
    own = np.asarray(score) - least
    below = np.zeros(len(nodes))
    for index in range(len(nodes) - 1, -1, -1):
        if nodes[index].parent >= 0:
            below[nodes[index].parent] += max(own[index], below[index], 0.0)
    chosen, closed = [], np.zeros(len(nodes), bool)
    for index, node in enumerate(nodes):
        if node.parent >= 0 and closed[node.parent]:
            closed[index] = True
        elif own[index] > 0 and own[index] >= below[index]:
            closed[index] = True
            chosen.append(index)
    return chosen
