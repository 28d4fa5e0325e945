"""See a finished tomogram in napari and name objects by clicking them.

``python -m tomocensus.viewer MYPROJECT TOMOGRAM`` (needs ``pip install "napari[all]"``)

Layers: density, probability, instances coloured by class. Type a class, then double-click objects:
each click appends a row to the examples file that the project's configuration names.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from tomocensus.classify.examples import append_examples, in_angstrom
from tomocensus.errors import InputError, without_traceback
from tomocensus.io import read_volume
from tomocensus.padding import shown_range
from tomocensus.provenance import read_json
from tomocensus.samples import read_project
from tomocensus.tables import read_table

MISSING = 'napari is missing, or its Qt. Install them: pip install "napari[all]"'


class Review:
    """One tomogram of a project, and the naming of its instances.

    Parameters
    ----------
    project : path-like
        The project's folder, with ``config/config.yaml`` or ``config.yaml``.
    tomogram : str
        Its name in the sample sheet.

    Raises
    ------
    InputError
        Where the tomogram is unknown or not finished.
    """

    def __init__(self, project: str | os.PathLike, tomogram: str):
        self.project, self.tomogram = Path(project), tomogram
        settings, samples = read_project(self.project)
        if tomogram not in samples:
            raise InputError(f"{tomogram}: not in the sample sheet; it knows {', '.join(samples)}.")
        self.examples = self.project / settings["examples"]
        folder = self.project / "results" / tomogram
        if not (folder / "instances.csv").is_file():
            raise InputError(f"{folder}: instances.csv is missing. Run the workflow first.")
        sample = samples[tomogram]
        self.density = read_volume(sample.path, sample.voxel_size)
        self.labels = np.asarray(read_volume(folder / "labels.mrc").data).astype(np.int32)
        shown, self.certain = folder / "probability.mrc", 100
        if sample.probability:
            shown = Path(sample.probability)
            self.certain = read_json(folder / "input.json")["probability_scale"]
        # A map from before labels were given says nothing of these.
        drawn = shown.exists() and not sample.labels
        self.probability = read_volume(shown, self.density.voxel_size).data if drawn else None
        self.table = read_table(folder / "instances.csv")
        self.name = ""

    def colours(self) -> dict[int | None, np.ndarray]:
        """Return the colour (RGBA, 0-1) of each instance's class."""
        from tomocensus.report.colours import class_colours

        colours = class_colours(self.table["class"])
        found: dict[int | None, np.ndarray] = {None: np.array([0.5, 0.5, 0.5, 1.0])}
        for number, name in zip(self.table["instance"], self.table["class"], strict=True):
            found[int(number)] = np.append(np.array(colours[name]) / 255, 1.0)
        return found

    def name_at(self, position) -> str:
        """Name the instance at z, y, x (voxels) by :attr:`name`; return what was done in words."""
        z, y, x = (round(float(part)) for part in position)
        inside = all(0 <= at < n for at, n in zip((z, y, x), self.labels.shape, strict=True))
        number = int(self.labels[z, y, x]) if inside else 0
        if not number:
            return "no instance here"
        if not self.name.strip():
            return f"instance {number}: type a class first"
        row = {"tomogram": self.tomogram, "x": x, "y": y, "z": z, "class": self.name.strip()}
        density = self.density
        row |= in_angstrom(np.array([[x, y, z]]), density.voxel_size, density.offset)[0]
        append_examples(self.examples, [row])
        return f"instance {number} named {row['class']} in {self.examples}"

    def describe(self, position) -> str:
        """Return class and confidence of what lies at z, y, x (voxels), for the status bar."""
        index = tuple(round(float(part)) for part in position)
        if not all(0 <= at < n for at, n in zip(index, self.labels.shape, strict=True)):
            return ""
        rows = self.table[self.table["instance"] == self.labels[index]]
        if not len(rows):
            return ""
        row = rows.iloc[0]
        return f"#{row['instance']} {row['class']} ({float(row['confidence']):.2f})"


def add_layers(viewer, review: Review) -> None:
    """Add the layers and the double click to a napari viewer (or its model, off screen).

    Parameters
    ----------
    viewer : napari.Viewer or napari.components.ViewerModel
        Where.
    review : Review
        What.
    """
    from napari.utils import DirectLabelColormap

    depth = len(review.labels)
    limits = shown_range(review.density.data, range(0, depth, depth // 8 + 1))
    viewer.add_image(review.density.data, name=review.tomogram, contrast_limits=limits)
    if review.probability is not None:
        viewer.add_image(
            review.probability,
            name="probability",
            colormap="magma",
            opacity=0.5,
            visible=False,
            contrast_limits=(0, review.certain),
        )
    layer = viewer.add_labels(
        review.labels,
        name="instances",
        opacity=0.4,
        colormap=DirectLabelColormap(color_dict=review.colours()),
    )
    layer.editable = False

    def clicked(source, event):
        viewer.status = review.name_at(source.world_to_data(event.position))

    layer.mouse_double_click_callbacks.append(clicked)
    viewer.dims.set_current_step(0, review.labels.shape[0] // 2)


def main() -> None:
    """Open the viewer."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("project")
    options.add_argument("tomogram")
    arguments = options.parse_args()
    try:
        import napari
        from magicgui.widgets import ComboBox, Container, LineEdit
    except ImportError as error:
        raise SystemExit(MISSING) from error
    with without_traceback():
        review = Review(arguments.project, arguments.tomogram)
    try:
        viewer = napari.Viewer(title=f"TomoCensus {arguments.tomogram}")
    except ImportError as error:
        raise SystemExit(MISSING) from error
    add_layers(viewer, review)
    name = LineEdit(label="class")
    known = ComboBox(label="known", choices=sorted(set(review.table["class"])))
    name.changed.connect(lambda text: setattr(review, "name", text))
    known.changed.connect(lambda text: setattr(name, "value", text))
    viewer.window.add_dock_widget(Container(widgets=[known, name]), name="Name by double click")
    napari.run()


if __name__ == "__main__":
    main()
