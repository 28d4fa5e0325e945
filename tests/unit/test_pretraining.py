import argparse
import sys

import numpy as np
import pytest
import torch
from scipy import ndimage

from tomocensus.classify import pretrain as classify_pretrain
from tomocensus.io import write_labels, write_mrc
from tomocensus.models import load_model
from tomocensus.segment import pretrain as segment_pretrain
from tomocensus.segment.contrast import model_shape
from tomocensus.segment.pretrain import AROUND, MOST, at_own_scale, contacts_in_z, weight_of_thin
from tomocensus.simulate import training
from tomocensus.volume import Volume


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(training, "SHAPE", (24, 64, 64))


def test_a_training_tomogram_is_made_once(tmp_path, monkeypatch):
    first = training.stored_tomogram(3, tmp_path)
    monkeypatch.setattr(training, "training_tomogram", None)
    again = training.stored_tomogram(3, tmp_path)
    assert np.array_equal(first.tomogram.data, again.tomogram.data)
    assert np.array_equal(first.instances.data, again.instances.data)
    assert first.classes == again.classes
    assert set(np.unique(first.instances.data)) - {0} == set(first.classes)


def test_two_runs_fill_one_cache_without_meeting(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(training, "stored_tomogram", lambda seed, cache: made.append(seed))
    for offset in ("0", "1"):
        options = ["--cache", str(tmp_path), "--count", "5", "--every", "2", "--offset", offset]
        monkeypatch.setattr(sys, "argv", ["training", *options])
        training.main()
    assert sorted(made) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("voxel_size", "binned"), [(8.0, 8 / 12), (12.0, 1.0), (20.0, 1.0)])
def test_training_bins_what_prediction_would_bin(voxel_size, binned):
    tomogram = at_own_scale(Volume(np.zeros((24, 60, 60), np.float32), voxel_size))
    shape = model_shape(tomogram.shape, tomogram.voxel_size, segment_pretrain.VOXEL_SIZE)
    assert shape == tuple(round(n * binned) for n in (24, 60, 60))


def test_contacts_are_found_above_and_below():
    labels = np.zeros((4, 1, 3), int)
    labels[0, 0], labels[1, 0] = (1, 1, 0), (2, 1, 1)
    found = contacts_in_z(labels)
    assert found[:, 0].tolist() == [[True, False, False], [True, False, False]] + [[False] * 3] * 2


def test_thin_objects_and_what_lies_beside_them_count_more():
    labels = np.zeros((60, 60, 120), np.int32)
    z, y, x = np.indices(labels.shape)
    labels[(z - 30) ** 2 + (y - 30) ** 2 + (x - 30) ** 2 < 20**2] = 1  # thick
    labels[(y - 30) ** 2 + (x - 70) ** 2 < 8**2] = 2  # a rod through the field
    labels[28:32, 28:32, 100:104] = 3
    weight = weight_of_thin(labels)
    for number, expected in ((1, 1), (2, 2), (3, MOST)):
        assert np.median(weight[labels == number]) == expected
    assert weight[30, 30, 104 + AROUND // 2 - 1] == MOST
    assert weight[30, 30, 104 + AROUND // 2] == 1
    assert weight[32, 30, 101] == 1  # slices are learnt from one by one
    assert weight.max() == MOST


def test_the_segmenters_recipe_makes_a_base_that_can_be_resumed(tmp_path, monkeypatch):
    options = (
        "--rounds 2 --tomograms 2 --steps 3 --batch 2 --patch 32 --slices 3 --width 4 --depth 3"
    )
    command = ["pretrain", "--output", tmp_path / "m", "--cache", tmp_path / "c", *options.split()]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    segment_pretrain.main()
    made = load_model(tmp_path / "m", "segmenter")
    assert made.card["heads"] == ["probability", "boundary", "membrane"]
    assert made.card["voxel_size_range"] == segment_pretrain.VOXEL_SIZE_RANGE
    assert made.card["recipe"]["slices"] == made.card["architecture"]["slices"] == 3
    monkeypatch.setattr(segment_pretrain, "train", None)
    segment_pretrain.main()
    assert load_model(tmp_path / "m", "segmenter").sha256 == made.sha256
    assert "asked" not in made.card
    for changed in ("--steps 4", "--first 7", f"--start {tmp_path / 'm'}"):
        monkeypatch.setattr(sys, "argv", [str(word) for word in (*command, *changed.split())])
        with pytest.raises(SystemExit, match="round-0: was trained otherwise"):
            segment_pretrain.main()


def test_going_on_from_a_base_may_keep_a_share_of_its_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    size = "--rounds 1 --tomograms 2 --batch 2 --patch 32 --slices 3 --width 4 --depth 3"
    begun = f"--output first --cache a {size} --steps 2"
    more = f"--cache b {size} --steps 3 --start first --first 5"
    for options in (begun, f"{more} --output alone", f"{more} --output mean --share 0.25"):
        monkeypatch.setattr(sys, "argv", ["pretrain", *options.split()])
        segment_pretrain.main()
    first, alone, mean = (load_model(name, "segmenter") for name in ("first", "alone", "mean"))
    for name, value in mean.weights.items():
        if value.dtype.kind == "f":
            expected = 0.75 * alone.weights[name] + 0.25 * first.weights[name]
            np.testing.assert_allclose(value, expected, atol=1e-3)
    assert mean.card["recipe"]["command"].endswith("--share 0.25")
    assert mean.card["metrics"] == {} != alone.card["metrics"]
    assert mean.card["trained_on"] == "2 simulated tomograms, after 2 simulated tomograms"


def test_training_for_minutes_takes_what_comes_into_the_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(segment_pretrain, "ENOUGH", 2)
    size = "--batch 2 --patch 32 --slices 3 --depth 3"
    rounds = f"--rounds 1 --tomograms 2 --steps 3 {size} --width 4 --output first --cache a"
    arriving = f"--tomograms 4 {size} --width 6 --output second --cache b --start first"
    for options in (rounds, f"{arriving} --minutes 0.02 --readers 1"):
        monkeypatch.setattr(sys, "argv", ["pretrain", *options.split()])
        if "--minutes" in options:
            for seed in range(4):
                training.stored_tomogram(seed, tmp_path / "b")
        segment_pretrain.main()
    card = load_model("second", "segmenter").card
    assert card["architecture"]["width"] == 6
    assert card["recipe"]["minutes"] == 0.02
    # Two are kept to calibrate on; the others are learnt from.
    assert card["trained_on"] == "4 simulated tomograms, after 2 simulated tomograms"
    assert card["metrics"]["held_out_probability_voxels"] > 0
    monkeypatch.setattr(
        sys, "argv", ["pretrain", *arriving.split(), "--minutes", "1", "--share", "0.5"]
    )
    with pytest.raises(SystemExit):
        segment_pretrain.main()


def test_an_encoder_learns_for_minutes_from_what_comes_into_the_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in {"LATER": 4, "CHECKED": 2, "ENOUGH": 2, "ROOM": 3000}.items():
        monkeypatch.setattr(classify_pretrain, name, value)
    options = "--encoder e --head h --cache c --tomograms 3 --width 4 --minutes 0.02 --batch 16"
    for more in (["--simulate-only"], []):
        monkeypatch.setattr(sys, "argv", ["pretrain", *options.split(), *more])
        classify_pretrain.main()
    assert len(list((tmp_path / "c").glob("views-*.npz"))) == 9
    card = load_model("e", "encoder").card
    assert card["training"]["simulated_tomograms"] in (2, 3)
    assert "--minutes 0.02" in card["recipe"]
    assert load_model("h", "classifier").card["encoder"] == card["sha256"]


def test_batches_of_objects_show_two_close_looks_of_each(tmp_path):
    seen, names, _ = classify_pretrain.collect(range(1), tmp_path)
    room = sum(len(view.kinds) for view in seen) - len(seen[-1].kinds)
    objects = classify_pretrain.Objects(sorted(set(names)), room, np.random.default_rng(0), "cpu")
    objects.add(seen, names)
    assert len(objects.target) == len(seen) - 1  # the last one finds no room
    crops, looks, owners, features, target = objects.batch(20)
    assert len(crops) == len(looks) == len(owners) == 80
    for owner in range(20):
        assert sorted(looks[owners == owner].tolist()) == [0, 1, 2, 2]
    row = int(np.nonzero([np.array_equal(v.features, features[3]) for v in seen])[0][0])
    assert sorted(set(names))[target[3]] == names[row]
    # Turned and mirrored, a mask keeps its voxels.
    mask = np.sort(seen[row].crops[0, 1].ravel())
    assert np.array_equal(np.sort(crops[12, 1].ravel().numpy()), mask)


def test_views_of_a_training_tomogram_are_kept(tmp_path):
    seen, names, seeds = classify_pretrain.collect(range(1), tmp_path)
    again, kinds, _ = classify_pretrain.collect(range(1), tmp_path)
    assert len(seen) == len(names) == len(seeds) > 0
    assert np.array_equal(names, kinds)
    for one, two in zip(seen, again, strict=True):
        assert np.array_equal(one.crops, two.crops)
        assert np.array_equal(one.features, two.features)
    more, kinds, _ = classify_pretrain.collect(range(1), tmp_path, variants=2)
    assert len(kinds) == len(more) > len(seen)
    first = {view.features.tobytes() for view in seen}
    assert any(view.features.tobytes() not in first for view in more[len(seen) :])


def test_the_contrastive_loss_is_that_of_all_pairs():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(7, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    target = np.array([0, 1, 0, 2, 1, 0, 3])  # the last and the fourth are alone
    losses = []
    for one in range(7):
        others = [k for k in range(7) if k != one]
        whole = np.log(sum(np.exp(vectors[one] @ vectors[k] / 0.1) for k in others))
        alike = [k for k in others if target[k] == target[one]]
        if alike:
            losses.append(np.mean([whole - vectors[one] @ vectors[k] / 0.1 for k in alike]))
    found = classify_pretrain.contrastive(torch.from_numpy(vectors), torch.from_numpy(target))
    assert float(found) == pytest.approx(np.mean(losses))


def test_faults_of_outlines_lie_at_outlines():
    """Objects shrink, grow or fray by a voxel and merge; none is lost, none jumps."""
    labels = np.zeros((20, 40, 60), np.int32)
    for number, (y, x) in enumerate(np.ndindex(3, 4), start=1):
        labels[3:15, 2 + 12 * y : 12 + 12 * y, 3 + 14 * x : 15 + 14 * x] = number
    labels[16:18, 30:32, 2:58] = 13  # so thin that it would be lost
    labels[15, 2:12, 3:15] = 14  # touches 1
    grown = ndimage.maximum_filter(labels, size=3)
    inner = ndimage.minimum_filter(labels, size=3) == grown
    kinds = set()
    for seed in range(40):
        found = classify_pretrain.corrupt(labels, np.random.default_rng(seed), merged=0.0)
        assert found.dtype == labels.dtype
        assert set(np.unique(found)) == set(range(15))
        np.testing.assert_array_equal(found[inner], labels[inner])
        assert ((found == labels) | (found == 0) | ((labels == 0) & (found == grown))).all()
        kinds.add(((found > 0) & (labels == 0)).any() + 2 * ((found == 0) & (labels > 0)).any())
    assert kinds == {0, 1, 2, 3}


def test_objects_that_merge_touch_and_have_the_number_of_one_of_them():
    labels = np.zeros((4, 12, 3), np.int32)
    for number, y in zip((3, 5, 1, 4, 2, 6), (0, 2, 4, 7, 9, 11), strict=True):
        labels[:3, y : y + 2] = number  # 3, 5, 1 in a row, then 4, 2, 6
    labels[3, :2] = 7
    labels[1, 4, 0] = 5  # 5 and 1 lie before each other
    seen = set()
    for seed in range(60):
        found = classify_pretrain._merge_some(labels, np.random.default_rng(seed), 0.5)
        names = {n: np.unique(found[labels == n]).tolist() for n in range(1, 8)}
        assert all(len(name) == 1 for name in names.values())
        groups = {name: [n for n in names if names[n] == [name]] for (name,) in names.values()}
        assert all(name in group for name, group in groups.items())
        for group in groups.values():
            assert ndimage.label(np.isin(labels, group))[1] == 1
        seen.add(len(groups))
    assert {3, 6} <= seen
    whole = classify_pretrain._merge_some(labels, np.random.default_rng(0), 1.0)
    assert len(np.unique(whole)) == 3  # and nothing
    assert (classify_pretrain._merge_some(labels, np.random.default_rng(0), 0.0) == labels).all()


@pytest.mark.parametrize("more", [["--steps", "5"], ["--steps", "0"], ["--minutes", "1"]])
def test_no_tomogram_is_learnt_from_and_looked_at_later(more, monkeypatch):
    monkeypatch.setattr(classify_pretrain, "LATER", 7)
    monkeypatch.setattr(classify_pretrain, "CHECKED", 3)
    given = argparse.Namespace(seed=2, tomograms=40, steps=1500, minutes=None)
    setattr(given, more[0].strip("-"), int(more[1]))
    parts = classify_pretrain._ranges(given)
    seeds = [seed for part in parts for seed in part]
    assert sorted(seeds) == list(range(20_000, 20_000 + len(seeds)))
    sizes = {"5": [40, 10, 5], "0": [0, 40, 5], "1": [40, 7, 3]}
    assert [len(part) for part in parts] == sizes[more[1]]
    # Nobody knows beforehand how many come within some minutes.
    assert not given.minutes or parts[0].start > max(parts[1].stop, parts[2].stop) - 1


def write_classified(folder):
    """Write a simulated tomogram as a lab would keep a real one: sheet, labelmap, classes."""
    made = training.training_tomogram(5)
    write_mrc(folder / "a.mrc", made.tomogram)
    write_labels(folder / "truth.mrc", made.instances)
    rows = "".join(f"{number},my_{name}\n" for number, name in made.classes.items())
    (folder / "classes.csv").write_text("instance,class\n" + rows)
    (folder / "sheet.tsv").write_text(
        "tomogram\tpath\tpolarity\tground_truth\tground_truth_classes\n"
        f"a\ta.mrc\t{made.polarity}\ttruth.mrc\tclasses.csv\n"
    )
    return made


def test_an_encoder_is_fine_tuned_on_real_objects_and_gets_another_prior(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = write_classified(tmp_path)
    seen, names, tomograms = classify_pretrain.real_views("sheet.tsv")
    assert sorted(names) == sorted(f"my_{name}" for name in made.classes.values())
    assert set(tomograms) == {"a"}
    cards = {}
    for name, more in (("first", []), ("second", ["--start", "first", "--annotated", "sheet.tsv"])):
        options = f"--encoder {name} --head {name}-head --cache c --tomograms 8 --steps 2 --width 4"
        monkeypatch.setattr(sys, "argv", ["pretrain", *options.split(), *more])
        classify_pretrain.main()
        cards[name] = load_model(name, "encoder").card
    assert cards["second"]["training"]["start"] == cards["first"]["sha256"]
    assert cards["second"]["width"] == 4
    known = cards["second"]["classes"]
    assert 0 < cards["second"]["training"]["real_objects"] <= len(seen)
    assert any(name.startswith("my_") for name in known)
    head = load_model("second-head", "classifier").card
    assert head["encoder"] == cards["second"]["sha256"]
    options = "--encoder third --head third-head --cache c --tomograms 4 --steps 0 --turns 2"
    monkeypatch.setattr(sys, "argv", ["pretrain", *options.split(), "--start", "second"])
    classify_pretrain.main()
    second, third = load_model("second", "encoder"), load_model("third", "encoder")
    assert (second.card["turns"], third.card["turns"]) == (4, 2)
    assert third.card["training"] == second.card["training"]
    for name, value in second.weights.items():
        assert np.array_equal(third.weights[name], value) == (not name.startswith("prior."))
    head = load_model("third-head", "classifier")
    assert head.card["encoder"] == third.sha256
    common = dict(zip(head.card["classes"], head.weights["common"], strict=True))
    rare = {name for name, value in common.items() if value < 1}
    assert rare == set(common) & set(classify_pretrain.RARE)
    monkeypatch.setattr(sys, "argv", ["pretrain", *options.split()])
    with pytest.raises(SystemExit):
        classify_pretrain.main()
