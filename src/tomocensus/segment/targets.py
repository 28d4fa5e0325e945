"""What the network shall learn: targets from annotation, on the model's grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from tomocensus.segment.contrast import Slices, model_shape, scale_annotation
from tomocensus.segment.settings import AnnotatedVolume

IGNORE = 255
# Draws of blocks to hold out, until both sorts are in and outside of them.
_TRIES = 20
# Slices that blocks are held out of, or one of each tomogram where these are more: each is
# predicted time and again.
HELD = 12
# Slices looked at for what the numbers of an annotation mean; parts of a slice with one number from
# which it is more likely a class, and voxels of a part below which it is a crumb.
_LOOKED_AT, _SCATTERED, _CRUMB = 12, 3, 10


@dataclass
class TargetSlice:
    """One annotated slice: its context, its targets, and where patches may be centred.

    Parameters
    ----------
    name : str
        Tomogram.
    z : int
        Model slice.
    image : numpy.ndarray
        Normalised slab ``(slices, ny, nx)``, float32.
    target : numpy.ndarray
        ``(heads, ny, nx)``, uint8: 0, 1 or 255 (not annotated).
    held_out : numpy.ndarray
        bool ``(ny, nx)``: kept for validation.
    group : str
        Imaging condition.
    expected : numpy.ndarray, optional
        ``(heads, ny, nx)``, 0-1 or NaN: stands in where the annotation says nothing of a head.
    weight : numpy.ndarray, optional
        ``(ny, nx)``, uint8: how much a voxel counts; 1 where not given.
    """

    name: str
    z: int
    image: np.ndarray
    target: np.ndarray
    held_out: np.ndarray = field(default=None)
    group: str = ""
    expected: np.ndarray | None = None
    weight: np.ndarray | None = None

    def untold(self) -> np.ndarray:
        """Return where object or background is annotated, and something else is not."""
        return (self.target == IGNORE) & (self.target[0] != IGNORE)

    def training_target(self) -> np.ndarray:
        """Return the targets without what is held out."""
        return np.where(self.held_out, IGNORE, self.target).astype(np.uint8)


def outline(labels: np.ndarray) -> np.ndarray:
    """Return 1 where an in-plane neighbour has another label (both sides), 0 elsewhere.

    Parameters
    ----------
    labels : numpy.ndarray
        ``(ny, nx)``; negative is not annotated, and so is (255) what only such voxels surround
        or may cut.
    """
    result = np.zeros(labels.shape, np.uint8)
    doubtful = labels < 0
    for axis in (0, 1):
        first = tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))
        second = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        one, two = labels[first], labels[second]
        differ = (one != two) & (one >= 0) & (two >= 0)
        result[first] |= differ
        result[second] |= differ
        doubtful[first] |= two < 0
        doubtful[second] |= one < 0
    result[doubtful & (result == 0)] = IGNORE
    result[labels < 0] = IGNORE
    return result


def boundary_target(annotation: np.ndarray, kind: str, inside: bool = True) -> np.ndarray:
    """Return the outlines of the objects of one slice; see :func:`outline`.

    Touching instances are parted by an outline, of semantic annotation only those of two classes,
    of binary annotation none.

    Parameters
    ----------
    annotation : numpy.ndarray
        ``(ny, nx)``.
    kind : str
        ``binary``, ``semantic`` or ``instance``.
    inside : bool
        Whether the inside of what is not annotated by instance counts as free of outlines. It may
        be several touching objects: a base model that tells them apart shall not unlearn it.
    """
    if kind == "instance":
        return outline(annotation)
    result = outline(np.minimum(annotation, 1) if kind == "binary" else annotation)
    if not inside:
        result[(annotation > 0) & (result == 0)] = IGNORE
    return result


def make_targets(
    pair: AnnotatedVolume,
    voxel_size: float,
    slices: int,
    heads: list[str],
    inside: bool = True,
    most: int | None = None,
) -> list[TargetSlice]:
    """Turn an annotated tomogram into target slices on the model's grid.

    Parameters
    ----------
    pair : AnnotatedVolume
        Tomogram and annotation.
    voxel_size : float
        Å of the model.
    slices : int
        Slices of context.
    heads : list of str
        ``probability``, ``boundary`` and, where trained, ``membrane``.
    inside : bool
        See :func:`boundary_target`.
    most : int, optional
        Of the annotated slices at most so many, evenly spread; all if None.
    """
    source = Slices(pair.tomogram, voxel_size, pair.polarity, cache=64)
    annotated = scale_annotation(pair.annotation, source.shape)
    membranes = {} if pair.membrane is None else scale_annotation(pair.membrane, source.shape)
    # Of slices that are not annotated these say nothing, and may not take the place of another's.
    told = (pair.annotation >= 0).any(axis=(1, 2))[:, None, None]

    def beside(extra, dtype):
        if extra is None:
            return {}
        return scale_annotation(np.where(told, extra.astype(dtype), dtype(-1)), source.shape)

    contacts, weights = beside(pair.contacts, np.int8), beside(pair.weight, np.int16)
    result = []
    chosen = evenly(sorted(annotated), most)
    for z, slab in zip(chosen, _slabs(source, chosen, slices), strict=True):
        labels = annotated[z]
        nothing = np.full(labels.shape, -1)
        target = np.full((len(heads), *labels.shape), IGNORE, np.uint8)
        target[0] = np.where(labels < 0, IGNORE, labels > 0)
        target[1] = boundary_target(labels, pair.kind, inside)
        if z in contacts:
            target[1][(contacts[z] > 0) & (target[1] == 0)] = 1
        if "membrane" in heads:
            membrane = membranes.get(z, nothing)
            target[heads.index("membrane")] = np.where(membrane < 0, IGNORE, membrane > 0)
        result.append(
            TargetSlice(
                pair.name,
                z,
                slab,
                target,
                np.zeros(labels.shape, bool),
                pair.group,
                weight=weights[z].astype(np.uint8) if z in weights else None,
            )
        )
    return result


def _slabs(source: Slices, chosen: list[int], slices: int) -> Iterator[np.ndarray]:
    """Yield ``(slices, ny, nx)`` around each of the chosen slices; what they share is kept once."""
    half = slices // 2
    first = 0
    for last in range(len(chosen)):
        if last + 1 < len(chosen) and chosen[last + 1] - chosen[last] <= 2 * half:
            continue
        low, high = chosen[first] - half, chosen[last] + half
        stack = np.stack([source[z] for z in range(low, high + 1)])
        for z in chosen[first : last + 1]:
            yield stack[z - half - low : z + half - low + 1]
        first = last + 1


def annotated_slices(pair: AnnotatedVolume, voxel_size: float) -> tuple[np.ndarray, float]:
    """Return which slices are annotated, rising, and the mean of annotated voxels in each.

    Parameters
    ----------
    pair : AnnotatedVolume
        Tomogram and annotation.
    voxel_size : float
        Å of the model, on whose grid slices and voxels are.
    """
    shape = model_shape(pair.tomogram.shape, pair.tomogram.voxel_size, voxel_size)
    factors = [new / old for new, old in zip(shape, pair.tomogram.shape, strict=True)]
    known = np.array([np.count_nonzero(section >= 0) for section in pair.annotation])
    there = np.flatnonzero(known)
    mean = float(known[there].mean() * factors[1] * factors[2]) if len(there) else 0.0
    return np.unique(((there + 0.5) * factors[0]).astype(int)), mean


def shares(wanted: list[float], room: float) -> list[float]:
    """Divide room: each gets what it wants, or as much as all others that get less than that."""
    given = [0.0] * len(wanted)
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    for rank, index in enumerate(order):
        given[index] = min(wanted[index], room / (len(order) - rank))
        room -= given[index]
    return given


def evenly(items: list, most: int | None) -> list:
    """Return the items, or as many as wanted, evenly spread."""
    if most is None or len(items) <= most:
        return items
    return [items[int((k + 0.5) * len(items) / most)] for k in range(most)]


def hold_out(targets: list[TargetSlice], part: float, generator, block: int = 48) -> bool:
    """Set blocks of the annotated area aside for validation (in place).

    Only where at least 30,000 voxels are annotated and both sorts are found inside and outside of
    what is held out; where objects are few, other blocks are drawn until it is so. Of more than
    `HELD` slices (and tomograms) some, evenly spread, have such blocks. Slices whose surroundings
    overlap show the same objects: they have the same blocks, and what is annotated there in those
    that are not held out of is forgotten.

    Returns
    -------
    bool
        Whether anything is held out.
    """
    wanted = set(_to_hold_out(targets))
    known = [t.target[0] != IGNORE for t in targets]
    total = sum(int(known[index].sum()) for index in wanted)
    if part <= 0 or total < 30_000:
        return False
    blocks = []
    for chain in _chains(targets):
        ny, nx = targets[chain[0]].held_out.shape
        for y in range(0, ny, block):
            for x in range(0, nx, block):
                here = np.s_[y : y + block, x : x + block]
                count = sum(int(known[index][here].sum()) for index in chain if index in wanted)
                if count:
                    blocks.append((chain, here, count))
    for _ in range(_TRIES):
        _draw_blocks(targets, blocks, part * total, generator)
        inside = np.concatenate([t.target[0][t.held_out] for t in targets])
        outside = np.concatenate([t.target[0][~t.held_out] for t in targets])
        if all((side == value).sum() >= 100 for side in (inside, outside) for value in (0, 1)):
            _forget([t for index, t in enumerate(targets) if index not in wanted])
            return True
    for t in targets:
        t.held_out[:] = False
    return False


def _forget(targets: list[TargetSlice]) -> None:
    """Hold nothing out, and have nothing annotated there: it shows what others hold out."""
    for t in targets:
        t.target[:, t.held_out] = IGNORE
        t.held_out[:] = False


def _chains(targets: list[TargetSlice]) -> list[list[int]]:
    """Return the slices in groups: those that lie within each other's surroundings together."""
    chains: list[list[int]] = []
    for index, t in enumerate(targets):
        last = targets[chains[-1][-1]] if chains else None
        if last is not None and last.name == t.name and 0 < t.z - last.z < len(t.image):
            chains[-1].append(index)
        else:
            chains.append([index])
    return chains


def _to_hold_out(targets: list[TargetSlice]) -> list[int]:
    """Return which slices blocks may be held out of."""
    mine: dict[str, list[int]] = {}
    for index, t in enumerate(targets):
        mine.setdefault(t.name, []).append(index)
    each = shares([len(some) for some in mine.values()], max(HELD, len(mine)))
    return sorted(
        index
        for some, share in zip(mine.values(), each, strict=True)
        for index in evenly(some, int(share))
    )


def _draw_blocks(targets, blocks, wanted, generator) -> None:
    """Set random blocks aside until `wanted` annotated voxels are, and nothing else."""
    for t in targets:
        t.held_out[:] = False
    taken = 0
    for number in generator.permutation(len(blocks)):
        if taken >= wanted:
            break
        chain, here, count = blocks[number]
        for index in chain:
            targets[index].held_out[here] = True
        taken += count


def hold_out_blocks(targets: list[TargetSlice], part: float, generator, block: int = 48) -> None:
    """Set a random part of the blocks of slices aside, whatever they show (in place)."""
    for t in targets:
        rows, columns = (-(-n // block) for n in t.held_out.shape)
        chosen = generator.random((rows, columns)) < part
        ny, nx = t.held_out.shape
        t.held_out[:] = np.kron(chosen, np.ones((block, block), bool))[:ny, :nx]


def check(targets: list[TargetSlice]) -> list[str]:
    """Say in plain words what may keep the annotation from teaching much."""
    objects = sum(int((t.target[0] == 1).sum()) for t in targets)
    background = sum(int((t.target[0] == 0).sum()) for t in targets)
    warnings = []
    if objects + background < 20_000:
        warnings.append(
            f"only {objects + background} voxels are annotated (at the model's voxel size); "
            "annotate a few whole slices for a dependable model"
        )
    if objects < 500:
        warnings.append(f"only {objects} object voxels are annotated: annotate more objects")
    if background < 500:
        warnings.append(
            f"only {background} background voxels are annotated: the network cannot learn what is "
            "no object. Mark background too (0), do not leave it unlabelled (-1)"
        )
    everywhere = all((t.target[0] == 1).any() for t in targets)
    if len(targets) > 1 and everywhere and background < objects:
        warnings.append(
            "more object than background is annotated; add a slice with few objects, or empty "
            "places will be called object"
        )
    return warnings


def check_kind(pair: AnnotatedVolume) -> list[str]:
    """Say where an annotation's numbers do not look like what they are said to mean."""
    told = [z for z, section in enumerate(pair.annotation) if (section >= 0).any()]
    numbers, scattered = set(), []
    for z in evenly(told, _LOOKED_AT):
        section = pair.annotation[z]
        there = np.unique(section[section > 0])
        numbers.update(there.tolist())
        compact = np.where(section > 0, np.searchsorted(there, section) + 1, 0)
        for number, box in enumerate(ndimage.find_objects(compact), start=1):
            parts, _ = ndimage.label(compact[box] == number, np.ones((3, 3)))
            large = np.bincount(parts.ravel())[1:] >= _CRUMB
            scattered.append(np.count_nonzero(large) >= _SCATTERED)
    setting = "train_segmenter.annotation in the configuration"
    if pair.kind == "binary" and len(numbers) > 1:
        return [
            f"the annotation of {pair.name} has {len(numbers)} numbers, and 'binary' takes all for "
            "one: it does not teach where objects end that touch. If each is an object, set "
            f"{setting} to instance, if each is a class, to semantic"
        ]
    if pair.kind == "instance" and np.mean(scattered or [False]) > 0.5:
        return [
            f"the annotation of {pair.name} has numbers in several places of a slice each, and "
            "'instance' takes each for one object. If they are classes, or all objects have one "
            f"number, set {setting} to semantic or binary"
        ]
    return []
