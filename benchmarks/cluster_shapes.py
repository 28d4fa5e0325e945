"""Analytic suite: shapes of known number of instances, at any size, turned and roughened.

Usage: python benchmarks/cluster_shapes.py [--sizes 400 30000 3000000] [--turns 2] [--noise 0 0.6]
       [--spacing 2 1 1]

Prints the failures and the part of the cases that are right.
"""

import argparse
import time

import numba
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

# All lengths in units of the main radius; coordinates z, y, x.
X, Y, Z = np.eye(3)[::-1]


@numba.njit(cache=True)
def _tube_field(field, start, step, path, radii):
    """Lower `field` to the signed distance from a path of round segments, linear in radius."""
    nz, ny, nx = field.shape
    for i in range(nz):
        for j in range(ny):
            for k in range(nx):
                z, y, x = start[0] + i * step[0], start[1] + j * step[1], start[2] + k * step[2]
                best = field[i, j, k]
                for n in range(max(1, len(path) - 1)):
                    m = min(n + 1, len(path) - 1)
                    dz, dy, dx = (
                        path[m, 0] - path[n, 0],
                        path[m, 1] - path[n, 1],
                        path[m, 2] - path[n, 2],
                    )
                    pz, py, px = z - path[n, 0], y - path[n, 1], x - path[n, 2]
                    length = dz * dz + dy * dy + dx * dx
                    t = 0.0
                    if length > 0:
                        t = min(1.0, max(0.0, (pz * dz + py * dy + px * dx) / length))
                    pz, py, px = pz - t * dz, py - t * dy, px - t * dx
                    radius = radii[n] + t * (radii[m] - radii[n])
                    best = min(best, np.sqrt(pz * pz + py * py + px * px) - radius)
                field[i, j, k] = best


class Solid:
    """Union of tubes; `half` squeezes the axes (an ellipsoid is a squeezed ball)."""

    def __init__(self, *paths, half=(1, 1, 1)):
        self.paths = [
            (np.atleast_2d(np.asarray(p, float)), np.broadcast_to(r, len(np.atleast_2d(p))))
            for p, r in paths
        ]
        self.half = np.asarray(half, float)

    def turned(self, rotation):
        """Return the shape turned (z, y, x); only for shapes that are not squeezed."""
        other = Solid(half=self.half)
        other.paths = [(path @ rotation.T, radii) for path, radii in self.paths]
        return other

    def bounds(self):
        low = np.min([np.min(p - r[:, None], axis=0) for p, r in self.paths], axis=0)
        high = np.max([np.max(p + r[:, None], axis=0) for p, r in self.paths], axis=0)
        return low, high

    def field(self, shape, start, step):
        step = np.broadcast_to(np.asarray(step, float), 3)
        field = np.full(shape, 1e9)
        for path, radii in self.paths:
            one = np.ascontiguousarray(path, float), np.ascontiguousarray(radii, float)
            _tube_field(field, np.asarray(start, float), np.ascontiguousarray(step), *one)
        return field


def ball(centre=(0, 0, 0), radius=1.0):
    return np.atleast_2d(centre), radius


def arc(turn, bend, radius=1.0, steps=40):
    """Part of a circle of radius `bend` in the y-x plane over `turn` degrees."""
    angle = np.radians(np.linspace(-turn / 2, turn / 2, steps + 1))
    return bend * np.stack([0 * angle, np.sin(angle), np.cos(angle)], axis=1), radius


def waist(neck, length=8.0, width=1.2):
    """A tube whose radius falls smoothly to `neck` in the middle over about its own diameter."""
    t = np.linspace(-length / 2, length / 2, 61)
    return t[:, None] * X, 1 - (1 - neck) * np.exp(-((t / width) ** 2))


def pair(overlap, first=1.0, second=1.0):
    """Two balls that share `overlap` of the smaller one's diameter."""
    apart = first + second - 2 * overlap * min(first, second)
    return Solid(ball(-X * apart / 2, first), ball(X * apart / 2, second))


def line(start, end, radius=1.0):
    return np.stack([np.asarray(start, float), np.asarray(end, float)]), radius


def solids():
    """Return ``{name: (Solid, instances)}``."""
    t = np.linspace(0, 1, 41)
    s_curve = np.stack([0 * t, 3 * np.sin(2 * np.pi * t), 12 * t], axis=1)
    helix = np.stack([5 * t, 3 * np.sin(4 * np.pi * t), 3 * np.cos(4 * np.pi * t)], axis=1)
    helix[:, 0] *= 1.6
    long = np.linspace(0, 16, 81)
    net = [line(4 * a * Y - 4 * X, 4 * a * Y + 4 * X, 0.8) for a in (-1, 0, 1)]
    net += [line(4 * a * X - 4 * Y, 4 * a * X + 4 * Y, 0.8) for a in (-1, 0, 1)]
    shapes = {
        "ball": (Solid(ball()), 1),
        "long ellipsoid": (Solid(ball(), half=(1, 1, 3)), 1),
        "triaxial ellipsoid": (Solid(ball(), half=(1, 1.7, 3)), 1),
        "flat ellipsoid": (Solid(ball(), half=(1, 3, 3)), 1),
        "capsule": (Solid(line(-2 * X, 2 * X)), 1),
        "filament": (Solid(line(-12 * X, 12 * X)), 1),
        "banana 90": (Solid(arc(90, 3)), 1),
        "banana 180": (Solid(arc(180, 2.5)), 1),
        "tight banana": (Solid(arc(200, 1.7)), 1),
        "S": (Solid((s_curve, 1.0)), 1),
        "helix": (Solid((helix, 1.0)), 1),
        "ring": (Solid(arc(360, 3)), 1),
        "tight ring": (Solid(arc(360, 1.8)), 1),
        "taper": (Solid(line(-3 * X, 3 * X, np.array([0.4, 1.2]))), 1),
        "teardrop": (Solid(line(-3.5 * X, 0 * X, np.array([0.2, 1.3]))), 1),
        "bent taper": (
            Solid((arc(150, 3)[0], np.linspace(1.2, 0.5, 41))),
            1,
        ),
        "wavy tube": (Solid((long[:, None] * X, 1 + 0.12 * np.sin(1.8 * long))), 1),
        "Y": (
            Solid(line(0 * X, -4 * X), line(0 * X, 3 * X + 2.5 * Y), line(0 * X, 3 * X - 2.5 * Y)),
            1,
        ),
        "T": (Solid(line(-4 * X, 4 * X), line(0 * Y, 4 * Y)), 1),
        "thin branch": (Solid(line(-4 * X, 4 * X), line(0 * Y, 4 * Y, 0.7)), 1),
        "cross": (Solid(line(-4 * X, 4 * X), line(-4 * Y, 4 * Y)), 1),
        "net": (Solid(*net), 1),
        "cisterna": (
            # A disc with a swollen rim.
            Solid(arc(360, 4, 0.9), *_disc(4, 0.55)),
            1,
        ),
        "three in a row": (Solid(ball(-1.9 * X), ball(), ball(1.9 * X)), 3),
        "four in a cluster": (
            Solid(*(ball(1.35 * np.array(c) / np.sqrt(2) * 0.99) for c in _tetrahedron())),
            4,
        ),
        "ball at the end of a capsule": (Solid(line(-5 * X, 0 * X), ball(1.9 * X)), 2),
        "ball at the side of a capsule": (Solid(line(-3 * X, 3 * X), ball(1.9 * Y)), 2),
        "small ball at a banana": (Solid(arc(180, 3), ball(4.72 * X, 0.85)), 2),
        "capsules side by side": (
            Solid(line(-2 * X, 2 * X), line(-2 * X + 1.9 * Y, 2 * X + 1.9 * Y)),
            2,
        ),
        "capsules end to end": (Solid(line(-5 * X, 0 * X), line(1.85 * X, 6.85 * X)), 2),
        "crossing capsules": (
            Solid(line(-4 * X, 4 * X), line(-4 * Y + 1.9 * Z, 4 * Y + 1.9 * Z)),
            2,
        ),
    }
    for percent in (0, 10, 20, 30, 40, 45):
        shapes[f"balls overlapping {percent} %"] = (pair(percent / 100 + 0.005), 2)
    for percent in (0, 15, 30):
        shapes[f"unequal balls overlapping {percent} %"] = (pair(percent / 100 + 0.01, 1, 0.55), 2)
    for percent, parts in ((30, 2), (40, 2), (60, 1), (70, 1), (80, 1), (90, 1)):
        shapes[f"tube with a neck of {percent} %"] = (Solid(waist(percent / 100)), parts)
    shapes["long waist of 60 %"] = (Solid(waist(0.6, 12, 3.0)), 1)
    return shapes


def _disc(radius, thick):
    """Fill a disc with parallel rods."""
    rows = np.arange(-radius, radius + 0.01, 0.25)
    ends = [np.sqrt(max(radius**2 - r**2, 0)) for r in rows]
    return [line(r * Y - e * X, r * Y + e * X, thick) for r, e in zip(rows, ends, strict=True)]


def _tetrahedron():
    return [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]


def shells():
    """Return ``{name: (list of Solids, what is missing, shared wall, instances)}``."""
    one = Solid(ball())
    touching = [Solid(ball(-0.99 * X)), Solid(ball(0.99 * X))]
    flat = [Solid(ball(-0.75 * X)), Solid(ball(0.75 * X))]
    nested = [Solid(ball(radius=1.6)), Solid(ball(radius=0.8))]
    capsule = [Solid(line(-1.5 * X, 1.5 * X))]
    banana = [Solid(arc(180, 2.5))]
    waisted = [Solid(waist(0.7, 6))]
    shapes = {}
    for missing in ("closed", "open", "torn"):
        shapes[f"{missing} shell"] = ([one], missing, 1)
        shapes[f"{missing} shells, touching"] = (touching, missing, 2)
        shapes[f"{missing} flattened pair with a shared wall"] = (flat, missing, 2)
        shapes[f"{missing} nested shells"] = (nested, missing, 2)
        shapes[f"{missing} capsule shell"] = (capsule, missing, 1)
        shapes[f"{missing} banana shell"] = (banana, missing, 1)
        shapes[f"{missing} waisted shell"] = (waisted, missing, 1)
    return shapes


def draw_solid(solid, voxels, rotation=None, noise=0.0, seed=0, spacing=(1, 1, 1)):
    """Return the mask of a solid of about `voxels` voxels; noise in voxels.

    `spacing`: edges of a voxel (z, y, x), of product 1.
    """
    if rotation is not None and np.all(solid.half == 1):
        solid = solid.turned(rotation)
    return grown([solid], voxels, lambda fields, step, grid: fields[0] <= 0, noise, seed, spacing)


def draw_shell(parts, missing, voxels, noise=0.0, seed=0, spacing=(1, 1, 1)):
    """Return the mask of shells of about `voxels` voxels when filled."""
    rng = np.random.default_rng(seed)
    # Holes away from each other, as the missing wedge and a bad map tear them.
    ways = [Rotation.random(random_state=int(rng.integers(1e6))).as_matrix()[0] for _ in range(4)]

    def visible(fields, steps, grid):
        step = max(steps)
        wall = max(2.0 * step, 0.14)
        nested = len(parts) > 1 and np.allclose(parts[0].paths[0][0], parts[1].paths[0][0])
        mask = np.zeros(fields[0].shape, bool)
        if nested or len(fields) == 1:
            for field in fields:
                mask |= (field <= 0) & (field > -wall)
        else:
            # Pressed against each other, they share one wall half way between them.
            one, two = fields
            mask = np.minimum(one, two) <= 0
            mask &= ~((one <= -wall) & (one - two <= -wall))
            mask &= ~((two <= -wall) & (two - one <= -wall))
        if missing != "closed":
            # The missing wedge takes what faces up and down: the steep part of the gradient.
            for field in fields:
                near = np.abs(field + wall / 2) <= wall / 2 + step
                up = np.abs(np.gradient(field, axis=0)) / steps[0]
                mask &= ~(near & (up > np.cos(np.radians(40))))
        if missing == "torn":
            for part in parts:
                path, radii = part.paths[0]
                for n, way in enumerate(ways):
                    at = path[(n * (len(path) - 1)) // 3] + way * radii[0]
                    far = sum((g - c) ** 2 for g, c in zip(grid, at, strict=True))
                    mask &= far > (0.3 * radii[0]) ** 2
        return mask

    return grown(parts, voxels, visible, noise, seed, spacing)


def grown(parts, voxels, visible, noise, seed, spacing):
    """Draw at the step that gives about `voxels` voxels, in a box with some room."""
    half = parts[0].half
    low = np.min([part.bounds()[0] for part in parts], axis=0)
    high = np.max([part.bounds()[1] for part in parts], axis=0)
    coarse = float(np.prod(high - low) / 60_000) ** (1 / 3)
    shape = np.ceil((high - low) / coarse).astype(int) + 1
    volume = np.count_nonzero(
        np.min([part.field(tuple(shape), low, coarse) for part in parts], axis=0) <= 0
    )
    step = float((volume * coarse**3 * np.prod(half) / voxels) ** (1 / 3))
    room = 6
    edges = step * np.asarray(spacing, float)
    steps = edges / half
    shape = tuple(np.ceil((high - low) / steps).astype(int) + 1 + 2 * room)
    start = low - room * steps + 0.37 * steps
    if np.all(half == 1):
        fields = [part.field(shape, start, edges) for part in parts]
    else:
        grid = np.ogrid[tuple(slice(0, n) for n in shape)]
        grid = [a + g * s for a, g, s in zip(start, grid, steps, strict=True)]
        fields = [(np.sqrt(sum(g**2 for g in grid)) - 1)]
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    grid = [a + g * s for a, g, s in zip(start, grid, edges, strict=True)]
    mask = visible(fields, edges, grid)
    if noise:
        rng = np.random.default_rng(seed)
        inside = ndimage.distance_transform_edt(mask, sampling=spacing)
        inside -= ndimage.distance_transform_edt(~mask, sampling=spacing)
        sigma = 1.5 / np.asarray(spacing, float)
        waves = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigma)
        mask = inside + noise * 0.5 * waves / waves.std() > 0.5
    return mask


def cases(sizes, turns, noises, names=None, spacing=(1, 1, 1)):
    """Yield name, size, turn, noise, mask and the instances expected.

    `spacing`: edges of a voxel (z, y, x), of product 1; sizes and noise are those of cubes.
    """
    chance = np.random.default_rng(7)
    rotations = [None] + [Rotation.random(random_state=int(chance.integers(1e6))) for _ in range(9)]
    for size in sizes:
        for turn in range(turns):
            rotation = rotations[turn].as_matrix() if rotations[turn] is not None else None
            for noise in noises:
                for name, (solid, parts) in solids().items():
                    if names and name not in names:
                        continue
                    mask = draw_solid(solid, size * parts, rotation, noise, turn, spacing)
                    yield name, size, turn, noise, mask, parts
                # A shell of 300 voxels is three voxels wide inside: there is no lumen to see.
                # Flat voxels must not be fewer across than that.
                voxels = max(size, round(3000 * max(spacing) ** 3))
                for name, (parts, missing, count) in shells().items():
                    if names and name not in names:
                        continue
                    mask = draw_shell(parts, missing, voxels * count, noise, turn, spacing)
                    yield name, size, turn, noise, mask, count


def unit(spacing):
    """Return edges of a voxel scaled to a volume of 1."""
    return tuple(np.asarray(spacing, float) / np.prod(spacing) ** (1 / 3))


def main():
    from tomocensus.cluster import ClusterParameters, cluster

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[400, 30_000])
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.6])
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--spacing", type=float, nargs=3, default=[1, 1, 1], help="z y x")
    arguments = parser.parse_args()
    spacing = unit(arguments.spacing)
    right, total, spent, voxels = {}, {}, 0.0, 0
    for name, size, turn, noise, mask, expected in cases(
        arguments.sizes, arguments.turns, arguments.noise, arguments.only, spacing
    ):
        begin = time.process_time()
        table = cluster(mask, spacing, ClusterParameters(minimum_volume=size / 12)).table
        spent, voxels = spent + time.process_time() - begin, voxels + mask.size
        total[size] = total.get(size, 0) + 1
        right[size] = right.get(size, 0) + (len(table) == expected)
        if len(table) != expected:
            print(
                f"{size} voxels, turn {turn}, noise {noise}: {name}: "
                f"{len(table)} instead of {expected}; {sorted(table['voxels'])[::-1][:6]}"
                f" necks {[round(n, 2) for n in table['neck_ratio'][:4]]}",
                flush=True,
            )
    for size in total:
        print(f"{size} voxels: {right[size]} of {total[size]} = {right[size] / total[size]:.1%}")
    print(f"{spent:.0f} CPU s, {spent / voxels * 1e6:.2f} CPU µs a voxel")


if __name__ == "__main__":
    main()
