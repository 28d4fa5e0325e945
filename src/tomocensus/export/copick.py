"""Instances as a copick project (https://copick.github.io/copick): picks and segmentations."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from tomocensus.atomic import atomic_path, write_json
from tomocensus.export.classes import unused
from tomocensus.io.zarr import write_ome_zarr

USER, SESSION = "tomocensus", "0"
# copick takes names of files apart at underscores.
_UNFIT = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\s_]+')


def copick_objects(
    tables: Iterable[pd.DataFrame], colours: dict[str, tuple[int, int, int]]
) -> list[dict]:
    """Return copick's description of each class of a data set.

    Parameters
    ----------
    tables : iterable of pandas.DataFrame
        Instance tables.
    colours : dict of str to tuple of int
        RGB, 0-255, of each class.

    Returns
    -------
    list of dict
        ``name``, ``label`` (1, 2, ...), ``radius`` (Å, median of the objects as spheres) and
        ``color`` of each class, by name; ``metadata`` holds the class as it is here.
    """
    columns = ["class", "equivalent_diameter_angstrom"]
    joined = pd.concat([table[columns] for table in tables], ignore_index=True)
    objects: list[dict] = []
    for kind, mine in joined.groupby("class"):
        name = _UNFIT.sub("-", str(kind)).strip("-") or "object"
        objects.append(
            {
                "name": unused(name, [one["name"] for one in objects]),
                "is_particle": True,
                "label": len(objects) + 1,
                "color": [*(int(part) for part in colours[kind]), 255],
                "radius": round(float(mine[columns[1]].median()) / 2, 1),
                "metadata": {"class": str(kind)},
            }
        )
    return objects


def write_copick_config(
    path: str | os.PathLike, objects: list[dict], overlay: str | os.PathLike
) -> None:
    """Write the configuration of the copick project in the folder of `path`.

    Parameters
    ----------
    path : path-like
        ``copick.json``. copick only reads what lies beside it, for that is made anew.
    objects : list of dict
        As of :func:`copick_objects`.
    overlay : path-like
        Folder in which copick saves what its users pick and draw; copick makes it.
    """
    write_json(
        path,
        {
            "config_type": "filesystem",
            "name": "TomoCensus",
            "description": "Instances found, parted and named by TomoCensus.",
            "version": "1.0.0",
            "pickable_objects": objects,
            "user_id": USER,
            "session_id": SESSION,
            "static_root": f"local://{Path(path).resolve().parent}",
            "overlay_root": f"local://{Path(overlay).resolve()}",
            "overlay_fs_args": {"auto_mkdir": True},
        },
    )


def remove_other_runs(folder: str | os.PathLike, tomograms: Iterable[str]) -> None:
    """Remove the runs of tomograms that there are no more.

    Parameters
    ----------
    folder : path-like
        ``ExperimentRuns``; it may be missing.
    tomograms : iterable of str
        Whose runs stay.
    """
    kept = set(tomograms)
    for run in Path(folder).glob("[!.]*"):
        if run.name not in kept and run.is_dir():
            shutil.rmtree(run)


def write_copick_run(
    folder: str | os.PathLike, table: pd.DataFrame, facts: dict, labels, objects: list[dict]
) -> None:
    """Write one tomogram's instances as a run of a copick project; all of it or nothing.

    Picks of each class: the centroids in Å from the first voxel, turned so that Z follows the long
    axis, with the instance's number and the confidence. Segmentations: one of all classes, and of
    each class one with the instances' numbers.

    Parameters
    ----------
    folder : path-like
        ``ExperimentRuns/TOMOGRAM``; what was there before goes.
    table : pandas.DataFrame
        Instance table.
    facts : dict
        ``input.json``.
    labels : array-like
        Labelmap ``(nz, ny, nx)``.
    objects : list of dict
        As of :func:`copick_objects`.
    """
    size = facts["voxel_size"]
    number = table["instance"].to_numpy(np.int64)
    known = {one["metadata"]["class"]: one for one in objects}
    label = table["class"].map({kind: one["label"] for kind, one in known.items()})
    values = np.zeros(1 + number.max(initial=0), np.min_scalar_type(len(objects)))
    values[number] = label.to_numpy(np.int64)
    marked = f"{size:.3f}_{USER}_{SESSION}"
    with atomic_path(folder) as temporary:
        (temporary / "Picks").mkdir(parents=True)
        whole = temporary / "Segmentations" / f"{marked}_classes-multilabel.zarr"
        write_ome_zarr(whole, labels, size, values)
        for kind, mine in table.groupby("class"):
            name = known[kind]["name"]
            picks = _picks(mine, name, facts)
            write_json(temporary / "Picks" / f"{USER}_{SESSION}_{name}.json", picks)
            single = np.zeros(len(values), np.min_scalar_type(len(values)))
            single[mine["instance"]] = mine["instance"]
            store = temporary / "InstanceSegmentations" / f"{marked}_{name}.zarr"
            write_ome_zarr(store, labels, size, single)


def _picks(table: pd.DataFrame, name: str, facts: dict) -> dict:
    """Return the picks of one class."""
    places = table[["x_voxel", "y_voxel", "z_voxel"]].to_numpy(float) * facts["voxel_size"]
    turned = _turned(table[["major_x", "major_y", "major_z"]].to_numpy(float))
    rows = (places, turned, table["instance"], table["confidence"])
    points = [
        {
            "location": dict(zip("xyz", np.round(place, 3).tolist(), strict=True)),
            "transformation_": matrix.tolist(),
            "instance_id": int(number),
            "score": round(float(score), 4) if score == score else 0.0,
        }
        for place, matrix, number, score in zip(*rows, strict=True)
    ]
    return {
        "pickable_object_name": name,
        "user_id": USER,
        "session_id": SESSION,
        "run_name": facts["tomogram"],
        "voxel_spacing": facts["voxel_size"],
        "unit": "angstrom",
        "trust_orientation": True,
        "points": points,
    }


def _turned(axes: np.ndarray) -> np.ndarray:
    """Return matrices ``(n, 4, 4)`` that turn Z to unit vectors ``(n, 3)``: about Y, then Z."""
    x, y, z = axes.T
    across = np.hypot(x, y)
    turn = np.arctan2(y, x)
    cosine, sine, nothing = np.cos(turn), np.sin(turn), np.zeros_like(x)
    rows = [
        [cosine * z, -sine, x, nothing],
        [sine * z, cosine, y, nothing],
        [-across, nothing, z, nothing],
        [nothing, nothing, nothing, nothing + 1],
    ]
    return np.round(np.moveaxis(np.array(rows), -1, 0), 6)
