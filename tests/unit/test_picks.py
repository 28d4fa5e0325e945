import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tomocensus.classify.examples import append_examples, in_angstrom, read_examples
from tomocensus.errors import InputError
from tomocensus.export import write_imod_points, write_picks, write_star
from tomocensus.io.mrc import write_labels, write_mrc
from tomocensus.picks import fresh, in_voxels, main, matched, read, respelled, spread
from tomocensus.samples import Sample
from tomocensus.volume import Volume

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "picks"
FACTS = {"tomogram": "cell_01", "shape": (20, 40, 60), "voxel_size": 10.0}
PLACES = np.array([[10, 20, 5], [59, 39, 19], [3, 4, 5]])
SHEET = "tomogram\tpath\ncell_01\tcell_01_bin4.mrc\ncell_02\tcell_02.mrc\n"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("examples: config/examples.tsv\n")
    (tmp_path / "config" / "tomograms.tsv").write_text(SHEET)
    volume = Volume(np.zeros(FACTS["shape"], np.int8), 10.0, (100.0, 0.0, -50.0))
    for name in ("cell_01_bin4.mrc", "cell_02.mrc"):
        write_mrc(tmp_path / name, volume)
    return tmp_path


def instances():
    table = pd.DataFrame(PLACES, columns=["x_voxel", "y_voxel", "z_voxel"]).astype(float)
    table[["major_x", "major_y", "major_z"]] = [0.0, 0.0, 1.0]
    return table.assign(instance=[1, 2, 3], **{"class": ["ribosome", "ribosome", "vesicle"]})


def star(path, columns, *rows, optics=""):
    """Write a STAR file of one loop, after another one if any."""
    heads = "".join(f"_{name} #{n}\n" for n, name in enumerate(columns, 1))
    lines = "".join(" ".join(map(str, row)) + "\n" for row in rows)
    path.write_text(f"# version 30001\n{optics}\ndata_particles\n\nloop_\n{heads}{lines}\n")
    return path


def voxels(path, **more):
    return in_voxels(read(path).assign(**more), FACTS["shape"], FACTS["voxel_size"]).tolist()


@pytest.mark.parametrize("version", [4, 5])
def test_what_was_exported_for_relion_is_found_again(tmp_path, version):
    path = tmp_path / "p.star"
    write_star(path, instances(), FACTS, version=version)
    assert voxels(path) == PLACES.tolist()
    assert read(path)["class"].tolist() == ["ribosome", "ribosome", "vesicle"]
    assert set(read(path)["tomogram"]) == {"cell_01"}


def test_what_was_exported_as_points_is_found_again(tmp_path):
    write_picks(tmp_path / "p.ndjson", instances(), FACTS)
    write_imod_points(tmp_path / "p.txt", instances())
    assert voxels(tmp_path / "p.ndjson") == voxels(tmp_path / "p.txt") == PLACES.tolist()
    assert read(tmp_path / "p.ndjson")["class"].tolist() == ["ribosome", "ribosome", "vesicle"]
    (tmp_path / "q.txt").write_text("1 2 10.5 20.5 5\n\n1 3 3.5 4.5 5\n")
    assert voxels(tmp_path / "q.txt") == [[10, 20, 5], [3, 4, 5]]


def test_pixels_of_unbinned_tilt_series_are_counted_in_their_size(tmp_path):
    optics = "\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n"
    optics += "_rlnTomoTiltSeriesPixelSize #3\n1 5.0 2.5\n2 5.0 1.25\n"
    xyz = ["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
    columns = ["rlnTomoName", *xyz, "rlnOpticsGroup", "rlnOriginXAngst"]
    rows = [("0404", 40, 80, 20, 1, 0), ("0404", 80, 160, 40, 2, 20)]
    path = star(tmp_path / "p.star", columns, *rows, optics=optics)
    assert voxels(path) == [[10, 20, 5], [8, 20, 5]]
    assert read(path)["tomogram"].tolist() == ["0404", "0404"]  # no number
    assert voxels(path, voxel_size=10.0)[0] == [40, 80, 20]
    old = ["rlnMicrographName", *xyz, "rlnMagnification", "rlnDetectorPixelSize", "rlnOriginZ"]
    path = star(tmp_path / "old.star", old, ("t/a.mrc", 20, 40, 10, 10000, 5, 2))
    assert voxels(path) == [[10, 20, 4]]
    path = star(tmp_path / "warp.star", ["wrpSourceName", *xyz], ("a.tomostar", 20, 40, 10))
    assert voxels(path) == [[20, 40, 10]]
    assert read(path)["voxel_size"].isna().all()
    path = star(tmp_path / "alone.star", [*xyz, "rlnOpticsGroup"], (20, 40, 10, 1))
    assert voxels(path) == [[20, 40, 10]]
    path = star(tmp_path / "moved.star", [*xyz, "rlnOriginXAngst"], (20, 40, 10, 7))
    assert voxels(path) == [[20, 40, 10]]


def test_shifts_of_turned_subtomograms_are_turned_back(tmp_path):
    columns = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
    columns += [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
    columns += [f"rlnTomoSubtomogram{angle}" for angle in ("Rot", "Tilt", "Psi")]
    # Their z lies along -x of the tomogram (third column of RELION's matrix), or as it did.
    rows = [(0, 0, 0, 0, 0, 50, 0, 90, 0), (0, 0, 0, 0, 0, 50, 0, 0, 0)]
    assert voxels(star(tmp_path / "p.star", columns, *rows)) == [[35, 20, 10], [30, 20, 5]]


def test_copick_keeps_angstrom_from_the_first_voxel(tmp_path):
    points = [{"location": {"x": 100.0, "y": 204.0, "z": 46.0}}]
    told = {"pickable_object_name": "ribosome", "run_name": "TS_1", "points": points}
    (tmp_path / "p.json").write_text(json.dumps(told))
    assert voxels(tmp_path / "p.json") == [[10, 20, 5]]
    assert read(tmp_path / "p.json").loc[0, ["tomogram", "class"]].tolist() == ["TS_1", "ribosome"]


def test_models_of_imod_count_as_their_text_does(tmp_path, imod_model):
    points = [[x + 0.5, y + 0.5, z] for x, y, z in PLACES.tolist()]
    (tmp_path / "p.mod").write_bytes(imod_model(("ribosome", points[:2]), ("", points[2:])))
    assert voxels(tmp_path / "p.mod") == PLACES.tolist()
    assert read(tmp_path / "p.mod")["class"].tolist() == ["ribosome", "ribosome", ""]
    (tmp_path / "p.mod").write_bytes(imod_model())
    with pytest.raises(InputError, match="no positions"):
        read(tmp_path / "p.mod")


def test_matlab_programs_count_from_one(tmp_path):
    table = np.zeros((3, 35))
    table[:, 19] = 7
    table[:, 23:26] = PLACES + 1
    table[0, 3:6], table[0, 23:26] = (2, -1, 3), PLACES[0] + 1 - (2, -1, 3)
    np.savetxt(tmp_path / "p.tbl", table, fmt="%g")
    assert voxels(tmp_path / "p.tbl") == PLACES.tolist()
    assert set(read(tmp_path / "p.tbl")["tomogram"]) == {"7"}
    np.savetxt(tmp_path / "one.tbl", table[:1], fmt="%g")
    assert voxels(tmp_path / "one.tbl") == PLACES[:1].tolist()
    names = ["tomo_num", "orig_x", "orig_y", "orig_z", "x_shift", "y_shift", "z_shift", "class"]
    rows = [(7, *row, 1) for row in table[:, [23, 24, 25, 3, 4, 5]]]
    path = star(tmp_path / "motl.star", names, *rows)
    assert voxels(path) == PLACES.tolist()
    assert read(path)[["tomogram", "class"]].to_numpy().tolist() == [["7", ""]] * 3


def test_parts_of_the_volume_and_angstrom_of_warp_and_m(project, capsys):
    xyz = ["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
    parts = PLACES / np.array([59, 39, 19])
    rows = [(*part, "cell_01.tomostar") for part in parts.tolist()]
    path = star(project / "matches.star", [*xyz, "rlnMicrographName"], *rows)
    assert voxels(path) == PLACES.tolist()
    main([str(project), str(path), "--class", "ribosome"])
    assert "taken for parts of the size of cell_01" in capsys.readouterr().out
    # Corners alone are voxels.
    path = star(project / "corners.star", xyz, (0, 0, 0), (1, 1, 0))
    assert voxels(path) == [[0, 0, 0], [1, 1, 0]]
    names = ["wrpCoordinateX1", "wrpCoordinateY1", "wrpCoordinateZ1", "wrpSourceName"]
    rows = [(*place, "cell_01.tomostar") for place in (PLACES * 10.0).tolist()]
    assert voxels(star(project / "m.star", names, *rows)) == PLACES.tolist()


def test_picks_of_several_tomograms_are_not_put_into_one(project):
    columns = ["rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
    command = [str(project), str(project / "p.star"), "--class", "a", "--tomogram", "cell_02"]
    star(project / "p.star", columns, ("TS_1", 5, 5, 5), ("TS_2", 9, 9, 9))
    with pytest.raises(SystemExit, match=r"several tomograms \(TS_1, TS_2\)"):
        main(command)
    star(project / "p.star", columns, ("t/TS_1.mrc", 5, 5, 5), ("TS_1.tomostar", 9, 9, 9))
    main(command)
    assert len(read_examples(project / "config" / "examples.tsv")) == 2


def dynamo(path, *numbers):
    """Write a Dynamo table with one particle at voxel (4, 4, 4) of each tomogram."""
    table = np.zeros((len(numbers), 35))
    table[:, 19], table[:, 23:26] = numbers, 5
    np.savetxt(path, table, fmt="%g")
    return str(path)


def test_numbers_of_tomograms_are_found_in_names(project, capsys):
    main([str(project), dynamo(project / "p.tbl", 1, 2, 2, 7), "--class", "a"])
    said = capsys.readouterr().out
    assert "taken is 1 for cell_01, 2 for cell_02" in said
    assert "not in the sample sheet, left out: 7" in said
    found = read_examples(project / "config" / "examples.tsv")
    assert found[["tomogram", "x"]].to_numpy().tolist() == [["cell_01", 4], ["cell_02", 4]]
    # What is said counts.
    main([str(project), dynamo(project / "p.tbl", 1), "--class", "b", "--tomogram", "cell_02"])
    assert "taken is" not in capsys.readouterr().out
    found = read_examples(project / "config" / "examples.tsv")
    assert found.loc[found["class"] == "b", "tomogram"].tolist() == ["cell_02"]


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["a_1", "b_1"], [1]),
        (["a_1_2", "b_3"], [1, 2, 3]),
        (["a_1", "b_2"], [3]),
        (["a", "b"], [0]),
    ],
)
def test_numbers_that_fit_none_or_several_are_not_guessed(project, names, numbers):
    rows = "".join(f"{name}\tcell_02.mrc\n" for name in names)
    (project / "config" / "tomograms.tsv").write_text("tomogram\tpath\n" + rows)
    with pytest.raises(SystemExit, match="Name the tomogram"):
        main([str(project), dynamo(project / "p.tbl", *numbers), "--class", "a"])


def test_a_number_that_the_sheet_has_is_that_tomogram(project, capsys):
    rows = "1\tcell_01_bin4.mrc\nTS_2\tcell_02.mrc\n"
    (project / "config" / "tomograms.tsv").write_text("tomogram\tpath\n" + rows)
    main([str(project), dynamo(project / "p.tbl", 1, 2), "--class", "a"])
    assert "left out: 2" in capsys.readouterr().out
    assert read_examples(project / "config" / "examples.tsv")["tomogram"].tolist() == ["1"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "p.star",
            "data_\n\nloop_\n_rlnMicrographName #1\n_rlnAngleRot #2\na.mrc 5\n",
            "no column",
        ),
        ("p.star", "nothing\n", "p.star"),
        (
            "p.star",
            "data_\n\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\n1 2 3\n1 b 3\n",
            "position 2",
        ),
        ("p.json", "{}", "cannot be read"),
        ("p.json", '{"points": [], "run_name": "a"}', "no positions"),
        ("p.json", '{"points": [], "unit": "voxel"}', "voxel"),
        ("p.ndjson", '{"location": {"x": 1, "y": null, "z": 3}}\n', "position 1"),
        ("p.ndjson", "[1]\n", "cannot be read"),
        ("p.txt", "1 2\n", "x, y, z"),
        ("p.txt", "1 2 nan\n", "position 1"),
        ("p.txt", "", "no positions"),
        ("p.mod", "IMODV1.2", "ends early"),
        ("p.tbl", "1 2 3\n", "cannot be read"),
        ("p.em", "", "not one of"),
    ],
)
def test_what_holds_no_picks_is_told(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        read(tmp_path / name)


def test_names_of_tomograms_are_found_with_endings_and_voxel_size():
    sheet = {
        name: Sample(name, f"data/{path}") for name, path in [("cell_01", "x.rec"), ("b", "B")]
    }
    sheet |= {name: Sample(name, "data/one.mrc") for name in ("c", "d")}
    names = ["cell_01", "t/cell_01_10.00Apx.mrc", "cell_01.tomostar", "x.mrc", "cell_0", "one"]
    found = matched(names, sheet)
    assert found == dict.fromkeys(names[:4], "cell_01")  # 'one' may be c or d


def test_examples_are_drawn_from_all_tomograms():
    rows = pd.DataFrame(
        [("a", "r")] * 50 + [("b", "r")] * 50 + [("c", "r")] * 2 + [("a", "v")] * 3,
        columns=["tomogram", "class"],
    )
    found = spread(rows, 12)
    counts = found.value_counts().to_dict()
    assert counts == {("a", "r"): 5, ("b", "r"): 5, ("c", "r"): 2, ("a", "v"): 3}
    assert found.index.is_monotonic_increasing
    assert spread(rows, 12, seed=1).index.tolist() != found.index.tolist()
    assert len(spread(rows, 0)) == len(rows)
    fewer = spread(rows, 12, pd.Series(["r"] * 9 + ["v"] * 20))
    assert fewer["class"].tolist() == ["r"] * 3


def test_picks_become_examples_once(project, capsys):
    write_star(project / "p.star", instances(), FACTS, version=5)
    main([str(project), str(project / "p.star")])
    assert "3 rows added" in capsys.readouterr().out
    found = read_examples(project / "config" / "examples.tsv")
    assert found[["x", "y", "z"]].to_numpy().tolist() == PLACES.tolist()
    assert found["class"].tolist() == ["ribosome", "ribosome", "vesicle"]
    main([str(project), str(project / "p.star")])
    assert "0 rows added" in capsys.readouterr().out
    assert len(read_examples(project / "config" / "examples.tsv")) == 3


def test_examples_in_angstrom_stay_so(project):
    path = project / "config" / "examples.tsv"
    path.write_text("class,tomogram,x_angstrom,y_angstrom,z_angstrom\n")
    write_star(project / "p.star", instances(), FACTS, version=5)
    for _ in range(2):
        main([str(project), str(project / "p.star")])
    found = read_examples(path)
    expected = PLACES * 10.0 + [100.0, 0.0, -50.0]
    np.testing.assert_allclose(found[["x", "y", "z"]], expected)
    assert set(found["unit"]) == {"angstrom"}


def test_class_and_tomogram_are_asked_for(project, capsys):
    (project / "p.txt").write_text("10.5 20.5 5\n10.5 20.5 5\n300 300 300\n")
    command = [str(project), str(project / "p.txt")]
    with pytest.raises(SystemExit, match="--class"):
        main(command)
    with pytest.raises(SystemExit, match="--tomogram"):
        main([*command, "--class", "ribosome"])
    with pytest.raises(SystemExit, match="not in the sample sheet"):
        main([*command, "--class", "ribosome", "--tomogram", "cell_03"])
    main([*command, "--class", "ribosome", "--tomogram", "cell_02"])
    out = capsys.readouterr().out
    assert "1 positions outside of cell_02" in out
    assert "states no voxel size" in out
    assert "1 rows added" in out  # the same place counts once
    with pytest.raises(SystemExit, match="--voxel-size"):
        main([*command, "--class", "a", "--tomogram", "cell_02", "--voxel-size", "90"])


def test_picks_in_the_corners_lie_within_and_those_beyond_do_not(project, capsys):
    corners = np.array([(0, 0, 0), (59, 39, 19), (-1, 0, 0), (59, 39, 20)])
    write_imod_points(
        project / "p.txt", pd.DataFrame(corners, columns=["x_voxel", "y_voxel", "z_voxel"])
    )
    main([str(project), str(project / "p.txt"), "--class", "a", "--tomogram", "cell_02"])
    assert "2 positions outside of cell_02" in capsys.readouterr().out
    found = read_examples(project / "config" / "examples.tsv")
    assert found[["x", "y", "z"]].to_numpy().tolist() == corners[:2].tolist()


def test_the_only_tomogram_of_a_sheet_is_meant(project):
    (project / "config" / "tomograms.tsv").write_text("tomogram\tpath\ncell_02\tcell_02.mrc\n")
    (project / "p.txt").write_text("10.5 20.5 5\n")
    main([str(project), str(project / "p.txt"), "--class", "a"])
    found = read_examples(project / "config" / "examples.tsv")
    assert found[["tomogram", "x"]].to_numpy().tolist() == [["cell_02", 10]]


def test_classes_that_a_file_tells_stay(project, capsys):
    columns = ["rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
    columns.append("tomocensusClass")
    rows = [("cell_02", n, n, n, kind) for n, kind in ((5, "ribosome"), (9, "vesicle"), (3, '""'))]
    command = [str(project), "--class", "debris", "--voxel-size", "10"]
    main([*command, str(star(project / "many.star", columns, *rows))])
    assert "tells the class ribosome, vesicle" in capsys.readouterr().out
    examples = read_examples(project / "config" / "examples.tsv")
    assert sorted(examples["class"]) == ["debris", "ribosome", "vesicle"]
    # The one class of a file may be called otherwise.
    one = [("cell_02", n, 7, 7, "apoferritin") for n in (5, 9)]
    main([*command, str(star(project / "one.star", columns, *one))])
    assert read_examples(project / "config" / "examples.tsv")["class"].tolist().count("debris") == 3


def test_an_object_without_a_name_does_not_rename_the_others(project, imod_model):
    objects = ("ribosome", [(10.5, 20.5, 5)]), ("", [(3.5, 4.5, 5)])
    (project / "p.mod").write_bytes(imod_model(*objects))
    main([str(project), str(project / "p.mod"), "--class", "debris", "--tomogram", "cell_02"])
    found = read_examples(project / "config" / "examples.tsv")
    assert found[["x", "class"]].to_numpy().tolist() == [[10, "ribosome"], [3, "debris"]]


def test_classes_are_spelled_as_in_the_examples():
    known = pd.Series(["dense_body", "Ribosome", "a-b", "a_b"])
    found = respelled(pd.Series(["dense-body", "ribosome", "a_b", "a-b", "new-kind"]), known)
    assert found.tolist() == ["dense_body", "Ribosome", "a_b", "a-b", "new-kind"]


def test_picks_are_compared_with_what_was_found(project, capsys):
    command = [str(project), str(project / "p.star"), "--compare"]
    write_star(project / "p.star", instances(), FACTS, version=5)
    with pytest.raises(SystemExit, match="Run the workflow first"):
        main(command)
    labels = np.zeros(FACTS["shape"], np.int16)
    for number, (x, y, z) in enumerate([PLACES[0], PLACES[1], (30, 30, 10), (40, 30, 10)], 1):
        labels[z, y, x] = number
    folder = project / "results" / "cell_01"
    folder.mkdir(parents=True)
    write_labels(folder / "labels.mrc", Volume(labels, 10.0))
    kinds = ["ribosome", "vesicle", "ribosome", "actin"]
    pd.DataFrame({"instance": [1, 2, 3, 4], "class": kinds}).to_csv(
        folder / "instances.csv", index=False
    )
    main(command)
    assert capsys.readouterr().out.splitlines() == [
        "2 picks of ribosome: 1 in ribosome, 1 in vesicle",
        "1 picks of vesicle: 1 in none",
        "1 objects named actin: 1 without a pick",
        "2 objects named ribosome: 1 without a pick",
        "1 objects named vesicle: 0 without a pick",
    ]
    assert not (project / "config" / "examples.tsv").exists()


def test_rows_of_examples_in_both_units_match():
    rows = pd.DataFrame([{"tomogram": "a", "x": 1, "y": 2, "z": 3, "class": "r"}])
    rows = rows.join(pd.DataFrame(in_angstrom(np.array([[1, 2, 3]]), 7.84, (0.0, 0.0, 0.0))))
    there = rows[["tomogram", "x", "y", "z", "class"]].assign(unit="voxel")
    assert fresh(rows, there).empty
    assert len(fresh(rows, there.assign(x=2))) == 1
    there[["x", "y", "z"]] = [[7.84, 15.7, 23.5]]
    assert fresh(rows, there.assign(unit="angstrom")).empty


def test_a_row_needs_one_of_both_units(tmp_path):
    path = tmp_path / "e.tsv"
    path.write_text("tomogram\tx_angstrom\ty_angstrom\tz_angstrom\tclass\n")
    row = {"tomogram": "a", "x": 1, "y": 2, "z": 3, "class": "r"}
    with pytest.raises(InputError, match="column x is missing"):
        append_examples(path, [row])
    row |= in_angstrom(np.array([[1, 2, 3]]), 10.0, (0.0, 0.0, 0.0))[0]
    append_examples(path, [row])
    assert read_examples(path)[["x", "y", "z"]].to_numpy().tolist() == [[10.0, 20.0, 30.0]]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real picks")
def test_real_picks_are_read():
    found = {path.name: read(path) for path in SHARED.iterdir()}
    assert len(found) >= 10
    ribosomes = found["czii_TS_5_4_ribosome.json"]
    assert len(ribosomes) == 31
    assert set(ribosomes["tomogram"]) == {"TS_5_4"}
    inside = in_voxels(ribosomes, (184, 630, 630), 10.012)
    assert ((inside >= 0) & (inside < (630, 630, 184))).all()
    atpase = found["chlamy_mito_atpase.star"]
    assert set(atpase["class"]) == {"atpase"}
    assert (found["builab_CCDC147C_001_particles.star"]["voxel_size"] == 14.0).all()
