"""Shells: their lumens, filled slice by slice or found where the membrane is torn."""

from __future__ import annotations

import cc3d
import numba
import numpy as np
from scipy import ndimage

from tomocensus.cluster.necks import Basins, find_basins
from tomocensus.cluster.smoothing import smooth, widened
from tomocensus.cluster.solidity import digital_solidity
from tomocensus.distances import distance_inside

# Whether the volume ends where an array does: its first and its last slice, row and column.
Cut = tuple[tuple[bool, bool], tuple[bool, bool], tuple[bool, bool]]
UNCUT: Cut = ((False, False),) * 3
# Least part of a mask's voxels that lumens opened by pinholes must have.
PINHOLED = 0.1
# Of a shell that the volume's sides cut: the least part of what encloses its lumen in the slices
# that is membrane; the lumen's least digital solidity, and from which part on that may be less.
SEEN, CUT_SOLID, SURE = 0.54, 0.7, 0.9
# Its least voxels: smaller ones are pores. Up to so many voxels around it the wall, from surface to
# middle, is at most this part of the lumen's half-width; gaps between objects have thicker ones, or
# are closed in fewer slices than this part of it.
PORE, WIDEST, THIN_WALL, FEW = 30, 12, 0.7, 0.25


def fill_slices(mask: np.ndarray, cut: Cut = UNCUT) -> np.ndarray:
    """Fill closed rings in every XY slice: shells whose caps the missing wedge took become solid.

    Parameters
    ----------
    mask : numpy.ndarray
        Boolean, ``(nz, ny, nx)``.
    cut : tuple of tuple of bool
        Whether the volume ends at the first and the last slice, row and column: there shells are
        cut, and their lumens open (:func:`find_cut_lumens`).
    """
    filled = _fill_planes(mask)
    # Rings that a pinhole opens: those of the mask with gaps of two voxels closed.
    closed = _close_gaps(mask)
    whole = _fill_planes(mask | (_fill_planes(closed) & ~closed))
    # A ragged mask has many pores; only the lumen of a shell is as large as that.
    if np.count_nonzero(whole) - np.count_nonzero(filled) > PINHOLED * np.count_nonzero(mask):
        filled = whole
    filled |= find_cut_lumens(filled, cut)
    lumens = filled & ~mask
    if lumens.any():
        # A slice whose ring is torn lies between slices whose rings are not.
        filled |= _bridged(lumens)
        # A closed shell's torn slices are closed rings along both other axes.
        across = [_fill_planes(filled.swapaxes(0, axis)).swapaxes(0, axis) for axis in (1, 2)]
        filled |= across[0] & across[1]
    return filled


def _bridged(mask: np.ndarray) -> np.ndarray:
    """Close gaps of up to four slices: dilated, then eroded, by five voxels along z."""
    count, reach = len(mask), 2
    grown = np.zeros((count + 2 * reach, *mask.shape[1:]), bool)
    for first in range(2 * reach + 1):
        grown[first : first + count] |= mask
    closed = grown[:count].copy()
    for first in range(1, 2 * reach + 1):
        closed &= grown[first : first + count]
    return closed


def sides_cut(start, shape, volume) -> Cut:
    """Tell at which ends of its slices, rows and columns a box ends where the volume does.

    Parameters
    ----------
    start, shape : sequence of int
        The box's corner and sides (z, y, x).
    volume : sequence of int
        Sides of the volume.
    """
    sides = zip(start, shape, volume, strict=True)
    return tuple((low == 0, low + length == whole) for low, length, whole in sides)


def find_cut_lumens(mask: np.ndarray, cut: Cut) -> np.ndarray:
    """Find the insides of shells that the volume's sides cut: convex, and walled but for the cut.

    Parameters
    ----------
    mask : numpy.ndarray
        Boolean, ``(nz, ny, nx)``.
    cut : tuple of tuple of bool
        See :func:`fill_slices`.

    Returns
    -------
    numpy.ndarray
        Boolean. A flat membrane from side to side has as much of the volume's sides on both of its
        own, and is no shell; nor is a shell of which less than about a third of the way around is
        seen.
    """
    found = np.zeros(mask.shape, bool)
    if not np.any(cut[1:]):
        return found
    walled, opened = _cut_regions(mask, np.array(cut[1:]), found)
    if not found.any():
        return found
    regions = cc3d.connected_components(found, connectivity=6)
    walls, cuts = (np.bincount(regions[found], one[found]) for one in (walled, opened))
    found[:] = False
    depth = distance_inside(mask)
    for label, box in enumerate(ndimage.find_objects(regions.astype(np.int32)), start=1):
        part = regions[box] == label
        share = walls[label] / (walls[label] + cuts[label])
        if np.count_nonzero(part) < PORE or share < SEEN:
            continue
        # Bent tubes are walled nearly all around.
        if share >= SURE or digital_solidity(part) >= CUT_SOLID:
            found[box] |= part & _thin_walled(part, box, depth)
    return found


def _thin_walled(part, box, depth) -> bool:
    """Tell a lumen from a gap between objects: its wall is thinner than the lumen is wide.

    Parameters
    ----------
    part : numpy.ndarray
        Bool, the lumen in its box.
    box : tuple of slice
        Where that lies.
    depth : numpy.ndarray
        Distance of the mask's voxels to its surface.
    """
    half = float(distance_inside(part, border=False).max())
    if len(part) < FEW * half:
        # What only a few slices enclose is open above and below.
        return False
    wide, inner = widened(box, depth.shape, WIDEST)
    near = np.zeros([side.stop - side.start for side in wide], bool)
    near[inner] = part
    beside = ndimage.binary_dilation(near) & (depth[wide] > 0)
    deepest = ndimage.maximum_filter(depth[wide], size=2 * min(int(half), WIDEST) + 3)
    return bool(np.median(deepest[beside]) <= THIN_WALL * half)


@numba.njit(cache=True, nogil=True)
def _cut_regions(mask, cut, found):
    """Mark the background of each plane that the mask and the sides where it is cut enclose.

    Only what reaches one or two such sides, and has as many faces to the mask as there. Returns how
    many faces to the mask and to such sides each of its voxels has.
    """
    nz, ny, nx = mask.shape
    walled, opened = np.zeros(mask.shape, np.uint8), np.zeros(mask.shape, np.uint8)
    waiting = np.empty(ny * nx, np.int64)
    seen = np.empty((ny, nx), np.bool_)
    sides = np.empty(4, np.bool_)
    for z in range(nz):
        if not mask[z].any():
            continue
        seen[:] = mask[z]
        for first in range(ny * nx):
            if seen[first // nx, first % nx]:
                continue
            seen[first // nx, first % nx] = True
            waiting[0] = first
            count, at, walls, cuts, free = 1, 0, 0, 0, False
            sides[:] = False
            while at < count:
                y, x = waiting[at] // nx, waiting[at] % nx
                at += 1
                for n in range(4):
                    axis, end = n // 2, n % 2
                    j, i = y, x
                    if axis == 0:
                        j += 2 * end - 1
                    else:
                        i += 2 * end - 1
                    if j < 0 or i < 0 or j >= ny or i >= nx:
                        if cut[axis, end]:
                            cuts += 1
                            sides[n] = True
                            opened[z, y, x] += 1
                        else:
                            free = True
                    elif mask[z, j, i]:
                        walls += 1
                        walled[z, y, x] += 1
                    elif not seen[j, i]:
                        seen[j, i] = True
                        waiting[count] = j * nx + i
                        count += 1
            if not free and 0 < sides.sum() <= 2 and walls >= cuts:
                for at in range(count):
                    found[z, waiting[at] // nx, waiting[at] % nx] = True
    return walled, opened


def _close_gaps(mask: np.ndarray) -> np.ndarray:
    """Close gaps of up to two voxels: dilated, then eroded, by a cube of three voxels."""
    wide = np.pad(mask, 1)
    for invert in (False, True):
        wide = ~wide if invert else wide
        for axis in range(3):
            before = wide.copy()
            low, high = (
                tuple(side if a == axis else slice(None) for a in range(3))
                for side in (slice(None, -1), slice(1, None))
            )
            wide[low] |= before[high]
            wide[high] |= before[low]
    return ~wide[1:-1, 1:-1, 1:-1]


@numba.njit(cache=True, nogil=True)
def _fill_planes(mask):
    """Fill the holes of every plane along the first axis: what no way by faces leads out of."""
    nz, ny, nx = mask.shape
    filled = np.zeros(mask.shape, np.bool_)
    wide = nx + 4
    # A plane's background, with a way around it and a wall around that.
    plane = np.zeros((ny + 4, wide), np.bool_)
    free = plane.ravel()
    # No row can be entered more often than it and its neighbours have runs.
    waiting = np.empty(2 * len(free), np.int64)
    for z in range(nz):
        if not mask[z].any():
            continue
        plane[1:-1, 1:-1] = True
        for y in range(ny):
            for x in range(nx):
                plane[y + 2, x + 2] = not mask[z, y, x]
        waiting[0] = wide + 1
        count = 1
        while count:
            count -= 1
            at = waiting[count]
            if not free[at]:
                continue
            while free[at - 1]:
                at -= 1
            entered = False, False
            while free[at]:
                free[at] = False
                above, below = free[at - wide], free[at + wide]
                if above and not entered[0]:
                    waiting[count] = at - wide
                    count += 1
                if below and not entered[1]:
                    waiting[count] = at + wide
                    count += 1
                entered = above, below
                at += 1
        for y in range(ny):
            for x in range(nx):
                filled[z, y, x] = mask[z, y, x] or plane[y + 2, x + 2]
    return filled


def open_share(mask: np.ndarray, filled: np.ndarray, cut: Cut = UNCUT) -> float:
    """Return which part of the surface of filled lumens has no membrane; 0 where there are none.

    Parameters
    ----------
    mask, filled : numpy.ndarray
        Boolean, one component before and after `fill_slices`.
    cut : tuple of tuple of bool
        See there; where the volume ends, nobody knows, and nothing counts.
    """
    if np.count_nonzero(mask) == np.count_nonzero(filled):
        return 0.0
    walled, opened = _count_faces((filled & ~mask).view(np.uint8), mask, np.array(cut))
    return float(opened[1] / (opened[1] + walled[1]))


def find_lumens(
    mask: np.ndarray, contact: float = 0.52, solidity: float = 0.87, smallest: float = 1.0
) -> np.ndarray:
    """Find the insides of shells that are torn open, where filling slices cannot.

    Basins of the distance to the membrane are joined over wide openings. A lumen is a basin
    that is convex and mostly walled; the gaps between packed vesicles are walled but concave.

    Parameters
    ----------
    mask : numpy.ndarray
        Boolean, one component.
    contact : float
        Least part of a lumen's surface that is membrane.
    solidity : float
        Least digital solidity of a lumen.
    smallest : float
        Voxels; a smaller basin is a pore of a ragged mask.

    Returns
    -------
    numpy.ndarray
        int32 labels 1..N of the lumens, in the shape of `mask`.
    """
    # The caps are missing where the crop ends: room for the basins outside.
    padded = np.pad(mask, 4)
    inner = (slice(4, -4),) * 3
    depth = smooth(distance_inside(~padded, border=False), 0.7) * ~padded
    basins, count = _one_outside(*find_basins(depth))
    lumens = np.zeros(mask.shape, np.int32)
    graph = Basins(basins, depth, count)
    graph.merge_shallow(1.0, thin=2.0)

    def one_lumen(graph, a, b):
        if graph.ratio(a, b) >= 0.8:
            return True
        if a == OUTSIDE:
            return False
        # Over smooth waists, not through tears.
        waisted = graph.ratio(a, b) >= WAIST and graph.sharpness(a, b) < SMOOTH
        return waisted or graph.solid(a, b, 0.93)

    graph.merge(one_lumen)
    # What lies around the shells is no lumen, however much of it is walled.
    outside = graph.root[OUTSIDE]
    basins = np.where(graph.root[basins] == outside, 0, graph.result()[0])
    walled, open_faces = _count_faces(basins, padded, np.array(UNCUT))
    basins = basins[inner]
    found = 0
    for label, box in enumerate(ndimage.find_objects(basins), start=1):
        faces = walled[label] + open_faces[label]
        if box is None or walled[label] < contact * faces:
            continue
        part = basins[box] == label
        large = np.count_nonzero(part) >= smallest
        if large and digital_solidity(part) >= solidity:
            found += 1
            lumens[box][part] = found
    return lumens


# Lumens join over a neck of this part of the thinner width, where it is less of a crease than that.
WAIST = 0.57
SMOOTH = 0.4
# Least digital solidity of bent lumens, as of tubes.
BENT = 0.3
# Number of the basin that reaches the border of the array.
OUTSIDE = 1


def _one_outside(basins: np.ndarray, count: int) -> tuple[np.ndarray, int]:
    """Make one of all basins that reach the border; the others keep their order."""
    outside = np.zeros(count + 1, bool)
    for axis in range(3):
        for end in (0, -1):
            outside[basins.take(end, axis)] = True
    outside[0] = False
    number = np.cumsum(~outside, dtype=np.int32) - 1 + OUTSIDE
    number[outside], number[0] = OUTSIDE, 0
    return number[basins], int(number.max())


@numba.njit(cache=True, nogil=True)
def _count_faces(basins, mask, cut):
    """Count each basin's voxel faces to the mask, and to other basins or out of the array.

    Those out of the volume, where it cuts the array, do not count.
    """
    nz, ny, nx = basins.shape
    size = basins.max() + 1
    walled, opened = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for z in range(nz):
        for y in range(ny):
            for x in range(nx):
                mine = basins[z, y, x]
                if mine == 0:
                    continue
                for n in range(6):
                    step = 2 * (n % 2) - 1
                    i, j, k = z, y, x
                    if n < 2:
                        i += step
                    elif n < 4:
                        j += step
                    else:
                        k += step
                    if i < 0 or j < 0 or k < 0 or i >= nz or j >= ny or k >= nx:
                        opened[mine] += not cut[n // 2, n % 2]
                    elif mask[i, j, k]:
                        walled[mine] += 1
                    elif basins[i, j, k] != mine:
                        opened[mine] += 1
    return walled, opened


def find_shared_walls(mask: np.ndarray, filled: np.ndarray, smallest: float = 1.0):
    """Find the membrane between two neighbouring lumens: two shells pressed against each other.

    Parameters
    ----------
    mask, filled : numpy.ndarray
        Boolean, one component before and after `fill_slices`.
    smallest : float
        Voxels of the smallest object; lumens below a fifth of it, and those like the gaps between
        packed shells, concave and narrow, do not count.

    Returns
    -------
    numpy.ndarray or None
        Boolean; None where there are no two lumens.
    """
    lumens, count = cc3d.connected_components(filled & ~mask, connectivity=6, return_N=True)
    sizes = np.bincount(lumens.ravel(), minlength=count + 1)
    inside = sizes >= 0.2 * smallest
    inside[0] = False
    if np.count_nonzero(inside) < 2:
        return None
    thick = distance_inside(mask)
    beside = mask & ndimage.maximum_filter(inside[lumens], size=3)
    reach = int(np.ceil(2 * np.median(ndimage.maximum_filter(thick, size=3)[beside])))
    boxes = ndimage.find_objects(lumens.astype(np.int32))
    for label in np.flatnonzero(inside):
        inside[label] = _is_inside(lumens[boxes[label - 1]] == label, reach)
    if np.count_nonzero(inside) < 2:
        return None
    lumens = np.where(inside[lumens], lumens, 0).astype(np.int32)
    # The bars of a net are no membranes: what parts lumens is thin compared with them.
    wide = 2 * distance_inside(lumens > 0).max()
    if wide < 2.5 * reach:
        return None
    largest = ndimage.maximum_filter(lumens, size=2 * reach + 1)
    none = np.iinfo(np.int32).max
    least = ndimage.minimum_filter(np.where(lumens, lumens, none), size=2 * reach + 1)
    shared = mask & (largest > 0) & (least != largest)
    return shared if shared.any() else None


def _is_inside(lumen: np.ndarray, wall: float) -> bool:
    """Tell a lumen, convex or at least as wide as two walls, from gaps between packed shells."""
    solidity = digital_solidity(lumen)
    if solidity >= 0.8:
        return True
    return solidity >= BENT and bool(distance_inside(lumen).max() >= wall)
