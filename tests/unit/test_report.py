import base64
import io
import json
import re
import shutil
import subprocess
import tracemalloc
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from tomocensus.classify.examples import ANGSTROM, COLUMNS, read_examples
from tomocensus.report import build_report, charts, inner_point, picture, split_pictures, thumbnail
from tomocensus.report.charts import bars, dots, histogram, lines
from tomocensus.report.colours import class_colours, colour, recolour_png
from tomocensus.report.pictures import choose_slices
from tomocensus.volume import Volume

EVIL = "</script><script>window.bad=1</script>\"'&{{css}}"


def scene(class_a="vesicle", class_b="debris"):
    """Two boxes: instance 1 at x 10..29, instance 2 at x 40..59; z 4..9, y 10..29."""
    labels = np.zeros((16, 40, 80), np.int32)
    labels[4:10, 10:30, 10:30] = 1
    labels[4:10, 10:30, 40:60] = 2
    noise = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
    probability = (labels > 0).astype(np.int8) * 100
    table = pd.DataFrame(
        {
            "tomogram": "one",
            "group": "",
            "instance": [1, 2],
            "class": [class_a, class_b],
            "confidence": [0.9, 0.4],
            "equivalent_diameter_angstrom": [200.0, 210.0],
            "volume_angstrom3": [2.4e6, 2.4e6],
            "x_voxel": [19.5, 49.5],
            "y_voxel": [19.5, 19.5],
            "z_voxel": [6.5, 6.5],
        }
    )
    return Volume(noise - labels, 10.0), probability, labels, table


def counts_of(table):
    return pd.DataFrame({"tomogram": "one", "group": "", "class": table["class"], "count": 1})


def rgba(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGBA"))


def data_of(html):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    return json.loads(found[1])


class Page(HTMLParser):
    VOID = ("meta", "link", "img", "input", "br", "rect", "line")

    def __init__(self, html):
        super().__init__()
        self.open, self.links, self.scripts, self.wrong = [], [], 0, []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        self.scripts += tag == "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture
def page():
    tomogram, probability, labels, table = scene()
    drawn = json.loads(json.dumps(picture(tomogram, probability, labels, table, slices=3)))
    return build_report(
        {"one": drawn}, table, counts_of(table), review=to_name(tomogram, labels), title="Test"
    )


def to_name(tomogram, labels, name="one", columns=COLUMNS, separator="\t"):
    point = inner_point(labels, 2, ndimage.find_objects(labels)[1])
    image = thumbnail(tomogram, labels, 2, point, 12)
    place = dict(zip("xyz", point, strict=True))
    row = {"tomogram": name, "instance": 2, "class": name, "confidence": 0.4}
    far = {f"{axis}_angstrom": value * 10.0 - 5.5 for axis, value in place.items()}
    told = {"examples": f"config/{name}.tsv", "columns": list(columns), "separator": separator}
    return {**told, "rows": [{**row, **place, **far, "image": image}]}


def test_overlays_have_the_colours_of_what_lies_there():
    tomogram, probability, labels, table = scene()
    drawn = picture(tomogram, probability, labels, table, slices=3)
    assert [cut["z"] for cut in drawn["slices"]] == [4, 6, 9]
    cut = drawn["slices"][1]
    factor = cut["width"] // 80
    assert cut["width"] >= 480
    assert cut["height"] == 40 * factor
    at = lambda y, x: (y * factor + factor // 2, x * factor + factor // 2)  # noqa: E731
    colours = class_colours(["vesicle", "debris"])
    named, numbered, chance = (rgba(cut[k]) for k in ("class", "instances", "probability"))
    assert tuple(named[at(20, 20)][:3]) == colours["vesicle"]
    assert tuple(named[at(20, 50)][:3]) == colours["debris"]
    assert tuple(numbered[at(20, 20)][:3]) == colour(0)
    assert tuple(numbered[at(20, 50)][:3]) == colour(1)
    for image in (named, numbered, chance):
        assert image[at(20, 35)][3] == 0
    assert 0 < named[at(20, 20)][3] < 255
    assert named[10 * factor, 10 * factor, 3] == 255  # the outline
    assert chance[at(20, 20)][3] > 200


def test_xz_cut_lies_at_the_middle_of_y():
    tomogram, probability, labels, table = scene()
    cut = picture(tomogram, probability, labels, table)["xz"]
    shown = rgba(cut["class"])
    factor = cut["width"] // 80
    assert cut["y"] == 20
    assert shown.shape[0] == 16 * factor
    assert shown[6 * factor, 20 * factor, 3] > 0
    assert shown[12 * factor, 20 * factor, 3] == 0


@pytest.mark.parametrize(
    ("dtype", "full"), [(np.float32, 1), (np.uint8, 1), (np.int8, 100), (np.uint8, 255)]
)
def test_what_is_certain_in_a_map_is_drawn_so(dtype, full):
    tomogram, _, labels, table = scene()
    chance = ((labels > 0) * full).astype(dtype)
    drawn = picture(tomogram, chance, labels, table, slices=1, certain=full)
    assert rgba(drawn["slices"][0]["probability"])[..., 3].max() == 230


def test_wide_tomograms_are_drawn_small():
    labels = np.zeros((8, 900, 1500), np.int32)
    drawn = picture(Volume(labels.astype(np.float32), 5.0), None, labels, pd.DataFrame(), 1)
    assert drawn["slices"][0]["width"] == 720
    assert drawn["slices"][0]["height"] == 432


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_padding_does_not_take_the_contrast_of_the_pictures(dtype):
    data = np.random.default_rng(0).normal(30_000, 300, (12, 64, 64)).round().astype(dtype)
    data[:, :, :20] = 0
    labels = np.zeros(data.shape, np.int32)
    labels[4:8, 20:40, 30:50] = 1
    table = pd.DataFrame({"instance": [1], "class": ["a"]})
    made = picture(Volume(data, 10.0), None, labels, table, slices=1)
    drawn = rgba(made["slices"][0]["density"])
    assert drawn[:, -40 * drawn.shape[1] // 64 :, 0].std() > 25
    small = rgba(thumbnail(Volume(data, 10.0), labels, 1, (32, 30, 6), 40))
    assert small[:, 80:, 2].std() > 25


def test_without_instances_map_or_contrast():
    labels = np.zeros((16, 40, 80), np.int32)
    volume = Volume(np.full(labels.shape, np.nan, np.float32), 10.0)
    drawn = picture(volume, None, labels, pd.DataFrame(), slices=5)
    assert [cut["z"] for cut in drawn["slices"]] == choose_slices(labels, 5)
    assert drawn["slices"][0]["z"] == 0
    assert drawn["slices"][-1]["z"] == 15
    assert drawn["slices"][0]["probability"] is None
    assert rgba(drawn["slices"][0]["class"])[..., 3].max() == 0
    html = build_report({"one": drawn}, pd.DataFrame(), pd.DataFrame())
    assert "No instances were found" in html
    assert data_of(html)["rows"] == []


def test_shapes_must_agree():
    tomogram, probability, labels, table = scene()
    with pytest.raises(ValueError, match="labels have shape"):
        picture(tomogram, probability, labels[1:], table)


def test_a_class_has_one_colour_in_all_tomograms():
    # Alone, "vesicle" would take the first colour; beside "debris" it takes the second.
    tomogram, probability, labels, table = scene("vesicle", "vesicle")
    drawn = picture(tomogram, probability, labels, table, slices=1)
    other = scene()[3].assign(tomogram="two")
    html = build_report({"one": drawn}, pd.concat([table, other]), counts_of(table))
    data = data_of(html)
    shown = rgba(data["pictures"]["one"]["slices"][0]["class"])
    factor = shown.shape[1] // 80
    red, green, blue = shown[20 * factor, 20 * factor, :3]
    assert f"#{red:02x}{green:02x}{blue:02x}" == data["colours"]["vesicle"]
    assert tuple(shown[20 * factor, 20 * factor, :3]) == colour(1)


def test_recolouring_needs_a_palette():
    stream = io.BytesIO()
    Image.new("RGB", (2, 2)).save(stream, "PNG")
    with pytest.raises(ValueError, match="no palette"):
        recolour_png(stream.getvalue(), [(1, 2, 3)])


def test_page_is_whole_and_asks_for_nothing(page):
    parsed = Page(page)
    assert parsed.wrong == []
    assert parsed.open == []
    assert all(link.startswith("data:") for link in parsed.links)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "{{" not in page


def test_rows_and_numbers_are_in_the_page(page):
    data = data_of(page)
    rows = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
    assert [row["class"] for row in rows] == ["vesicle", "debris"]
    assert rows[0]["volume_angstrom3"] == 2.4e6
    assert "sphericity" not in data["columns"]
    assert "one #2" in page


def test_text_from_outside_stays_text():
    tomogram, probability, labels, table = scene(EVIL)
    table["group"] = [EVIL, "b"]
    drawn = picture(tomogram, probability, labels, table, slices=1)
    html = build_report(
        {"one": drawn},
        table,
        counts_of(table),
        pd.DataFrame({"tomogram": [EVIL], "metric": [EVIL], "value": [0.5], "note": [EVIL]}),
        {"one": {"warnings": [EVIL]}},
        {"versions": {EVIL: EVIL}, EVIL: EVIL},
        {"segmenter": {"name": EVIL}, "classifier": {"classes": [EVIL], "confusion_matrix": [[1]]}},
        to_name(tomogram, labels, EVIL),
        EVIL,
    )
    parsed = Page(html)
    assert parsed.scripts == 2
    assert parsed.wrong == []
    assert parsed.open == []
    assert data_of(html)["rows"][0][data_of(html)["columns"].index("class")] == EVIL


def test_scores_models_and_provenance_are_shown():
    _, _, _, table = scene()
    html = build_report(
        {},
        table,
        counts_of(table),
        pd.DataFrame({"tomogram": "one", "metric": ["dice"], "value": ["0.91239"], "note": [""]}),
        {},
        {"versions": {"numpy": "2.4"}, "parameters": {"min_volume": 77}},
        {
            "segmenter": {"history": [{"step": 0, "loss": 1.0}, {"step": 9, "loss": 0.5}]},
            "classifier": {
                "classes": ["a", "b"],
                "confusion_matrix": [[3, 1], [0, 4]],
                "kinds": {"vesicle": "vesicle", "MT<": "microtubule"},
                "others": ["golgi", "er"],
                "called_unknown": 0.125,
            },
        },
    )
    assert "0.9124" in html
    assert "min_volume" in html
    assert "numpy" in html
    assert "learning curve" in html
    assert "truth / called" in html
    assert "vesicle, MT&lt; (microtubule)" in html
    assert "nobody named: golgi, er." in html
    assert "12% would be called unknown" in html


def test_scores_of_many_tomograms_are_summed_up():
    def shown(count):
        table = pd.DataFrame(
            [
                (f"t{k}", metric, value, "half" if k == 1 else "")
                for k in range(count)
                for metric, value in (("dice", 0.125 * (k % 3)), ("recall", np.nan if k else 0.5))
            ],
            columns=["tomogram", "metric", "value", "note"],
        )
        html = build_report({}, pd.DataFrame(), pd.DataFrame(), table)
        assert not Page(html).wrong
        part = html.split("Against ground truth")[1].split("</section>")[0]
        return part, [
            re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", row)
            for row in re.findall(r"<tr>(.*?)</tr>", part)
        ]

    part, rows = shown(2)
    assert rows == [["metric", "t0", "t1"], ["dice", "0", "0.125"], ["recall", "0.5", "–"]]
    assert "t1: half" in part
    rows = shown(30)[1]
    assert rows[0] == ["metric", "tomograms", "mean", "s.d.", "least", "greatest"]
    assert rows[1] == ["dice", "30", "0.125", "0.1038", "0", "0.25"]
    assert rows[2] == ["recall", "1", "0.5", "–", "0.5", "0.5"]


def test_heads_of_numbers_stand_over_them():
    drawn = charts.table(["name", "count"], [["a", 3], ["b", np.nan]])
    assert re.findall(r'<t[hd][^>]*class="n"[^>]*>(.*?)<', drawn) == ["count", "3", "–"]
    assert charts.table(["a", "b"], []).count("<th") == 3  # with the head's element


def test_odd_values_do_not_break_the_page():
    table = pd.DataFrame(
        {"tomogram": ["t", "t"], "instance": [1, 2], "class": [None, "a"], "confidence": ["", "x"]}
    )
    data = data_of(build_report({}, table, pd.DataFrame()))
    assert data["rows"] == [["t", 1, "unknown", None], ["t", 2, "a", None]]


def test_size_grows_little_with_rows():
    table = pd.concat([scene()[3]] * 10_000, ignore_index=True)
    html = build_report({}, table, pd.DataFrame())
    assert len(data_of(html)["rows"]) == 20_000
    assert len(html) < 20_000 * 80 + 200_000


def test_bars_are_as_long_as_their_values():
    drawn = bars([("a", 10, "red"), ("b", 5, "blue")], "x")
    assert re.findall(r'width="([\d.]+)"', drawn) == ["250.0", "125.0"]


def test_long_names_of_bars_are_cut_and_told_whole():
    drawn = bars([("virus_like_particle_of_all", 10, "red")], "x")
    (shown,) = re.findall(r'end"><title>virus_like_particle_of_all: 10</title>(.*?)<', drawn)
    assert shown == "virus_like_p…le_of_all"


def test_the_page_says_which_classes_have_charts():
    def page(count):
        names = [f"kind{k:02}" for k in range(count) for _ in range(20 - k)]
        table = pd.DataFrame({"class": names, "equivalent_diameter_angstrom": 100.0})
        html = build_report({}, table, pd.DataFrame())
        return sorted(set(re.findall(r"Size of (kind\d+)", html))), "12 commonest" in html

    assert page(12) == ([f"kind{k:02}" for k in range(12)], False)
    assert page(13) == ([f"kind{k:02}" for k in range(12)], True)


def test_groups_are_compared_class_by_class_with_those_that_have_no_objects():
    table = scene("virus_like_particle", "a&b")[3].assign(group="treated, two days")
    found = [
        # One crowded tomogram and an empty one are two tomograms, not nine objects.
        ("treated, two days", 9, 90.0, 200.0),
        ("treated, two days", 0, 0.0, None),
        ("untreated", 2, 20.0, 210.0),
        ("untreated", 3, 30.0, 230.0),
        ("", 0, 0.0, None),
    ]
    counts = pd.concat(
        [
            counts_of(table).assign(
                tomogram=f"t{number}",
                group=group,
                count=count,
                density_per_micrometre3=density,
                diameter_mean_angstrom=diameter,
            )
            for number, (group, count, density, diameter) in enumerate(found)
        ]
    )
    html = build_report({}, table, counts)
    assert Page(html).wrong == []
    # What is told of a class stands together.
    rows = re.split("<h3>(virus_like_particle|a&amp;b)</h3>", html)
    assert rows[1::2] == ["virus_like_particle", "a&amp;b"]
    density, size, histogram = rows[2].split("</figure>")[:3]
    assert "Density by group" in density
    assert "Size by group" in size
    assert "Size of virus_like_particle (n = 1)" in histogram

    def told(chart):
        return chart.count("<circle"), re.findall(r'end"><title>(.*?): (.*?)</title>', chart)

    assert told(density) == (5, [
        ("no group", "0 (n = 1)"),
        ("treated, two days", "45 ± 64 (n = 2)"),
        ("untreated", "25.0 ± 7.1 (n = 2)"),
    ])  # fmt: skip
    assert told(size) == (3, [
        ("no group", "– (n = 0)"),
        ("treated, two days", "20 (n = 1)"),
        ("untreated", "22.0 ± 1.4 (n = 2)"),
    ])  # fmt: skip
    assert "by group" not in build_report({}, table, counts.assign(group="one"))


def test_groups_of_one_tomogram_each_are_told_in_tables():
    table = scene("a&b", "c")[3]
    counts = pd.concat(
        [
            counts_of(table).assign(
                tomogram=group,
                group=group,
                density_per_micrometre3=[1234.56, 0.0],
                diameter_mean_angstrom=[diameter, None],
            )
            for group, diameter in (("wild", 201.26), ("<mutant>", 199.0))
        ]
    )
    html = build_report({}, table, counts)
    assert Page(html).wrong == []
    assert "<circle" not in html
    cells = [
        re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", part.split("</table>")[0])
        for part in html.split(" by group: ")[1:3]
    ]
    assert cells == [
        ["class", "&lt;mutant&gt;", "wild", "a&amp;b", "1,230", "1,230", "c", "0", "0"],
        ["class", "&lt;mutant&gt;", "wild", "a&amp;b", "19.9", "20.1", "c", "–", "–"],
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([19.607 - 0.348, 19.607 + 0.348], "19.61 ± 0.49"),
        ([3800.0, 3900.4], "3,850 ± 71"),
        ([5.0, 5.0], "5 ± 0"),
        ([0.0, 0.0, 0.00021], "0.00007 ± 0.00012"),
        ([7.25], "7.25"),
    ],
)
def test_means_have_as_many_digits_as_their_deviations_tell(values, text):
    assert f">{text}</text>" in dots([("a", values)], "red", "x", "nm")


def test_groups_of_the_segmenter_are_told_to_be_those_of_its_training():
    """The sheet's may be others since, and nothing trains anew for that."""
    card = {"groups": {"wild": {"held_out_dice": 0.81, "held_out_voxels": 90}}}
    html = build_report({}, pd.DataFrame(), pd.DataFrame(), models={"segmenter": card})
    assert "by group, as named at its training" in html
    assert "wild" in html


def test_dots_lie_at_their_values_and_the_line_at_the_mean():
    drawn = dots([("a", [0.0, 10.0, np.nan]), ("b", [5.0])], "red", "x", "per µm³")
    at = {float(x) for x in re.findall(r'<circle cx="(.*?)"', drawn)}
    assert at == {195.0, 285.0, 375.0}
    assert re.findall(r'class="mean" x1="(.*?)"', drawn) == ["285.0"]
    many = dots([("a", np.arange(5000.0))], "red", "x", "")
    assert many.count("<circle") < 300
    assert "n = 5,000" in many
    assert dots([("a", [])], "red", "x", "") == ""


def test_sizes_are_those_of_objects_that_are_whole():
    table = pd.concat([scene()[3]] * 3, ignore_index=True)
    table["touches_border"] = [True, True, False, True, False, True]
    html = build_report({}, table, counts_of(table))
    assert Page(html).wrong == []
    assert "Size of vesicle (n = 2)" in html
    assert "without 1 at the border" in html
    assert "<h3>Size of debris</h3><figcaption>all 3 at the border" in html


def test_very_many_rows_are_listed_in_part_and_counted_whole(monkeypatch):
    for name, most in (("MOST_ROWS", 3), ("MOST_COUNTS", 2), ("MOST_RECORDS", 1)):
        monkeypatch.setattr(f"tomocensus.report.html.{name}", most)
    tomogram, probability, labels, table = scene()
    instances = pd.concat([table.assign(tomogram=name) for name in ("a", "b", "c")])
    counts = pd.concat([counts_of(table).assign(tomogram=name) for name in ("a", "b", "c")])
    pictures = {"b": picture(tomogram, probability, labels, table)}
    provenance = {"records": {name: {"measure": {}} for name in ("a", "b", "c")}}
    html = build_report(pictures, instances, counts, provenance=provenance)
    data = data_of(html)
    assert [row[data["columns"].index("tomogram")] for row in data["rows"]] == ["b", "b", "a"]
    assert "3 of 6 instances are listed" in html
    assert "2 of 6 counts are listed" in html
    assert "<b>6</b><span>Instances</span>" in html
    shown = json.loads(unescape(re.search(r"Records</summary><pre>(.*?)</pre>", html, re.S)[1]))
    assert list(shown) == ["b", "others"]
    few = build_report(pictures, table, counts_of(table), provenance={"records": {"b": {}}})
    assert "are listed" not in few
    assert "others" not in few


def test_many_warnings_are_folded_and_none_is_lost():
    inputs = {f"t{number}": {"warnings": [f"fault {number}."]} for number in range(12)}
    html = build_report({}, pd.DataFrame(), pd.DataFrame(), inputs=inputs)
    assert [int(n) for n in re.findall(r"fault (\d+)\.", html)] == list(range(12))
    assert "2 more</summary>" in html
    assert html.index("fault 9.") < html.index("2 more") < html.index("fault 10.")
    assert not Page(html).wrong
    few = build_report({}, pd.DataFrame(), pd.DataFrame(), inputs={"t1": inputs["t1"]})
    assert "more</summary>" not in few


def test_histogram_counts_every_finite_value():
    drawn = histogram([1.0, 2.0, 2.0, np.nan, 9.0], "red", "sizes", "nm")
    assert sum(int(n) for n in re.findall(r": (\d+)</title>", drawn)) == 4
    assert histogram([np.nan], "red", "sizes", "nm") == ""


def test_bars_of_a_histogram_are_wide_where_values_are_few():
    bars = lambda *given: histogram(*given).count("<rect")  # noqa: E731
    assert [bars(range(n), "red", "sizes", "nm") for n in (3, 26, 2000)] == [5, 6, 20]
    assert bars([0.2], "red", "confidence", "", (0, 1)) == 20


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([24.118, 24.131], ["24.118", "24.1245", "24.131"]),
        ([1000, 1001], ["1,000", "1,000.5", "1,001"]),
        ([12.345, 61.8], ["12.3", "37.1", "61.8"]),
        ([0.001, 900_000], ["0", "450,000", "900,000"]),
        ([24.0, 24.0 + 1e-9], ["23.5", "24", "24.5"]),
        ([-1.0, 1.0], ["-1", "0", "1"]),
    ],
)
def test_the_ticks_of_a_histogram_differ(values, expected):
    drawn = histogram(values, "red", "sizes", "nm")
    assert re.findall(r'y="157"[^>]*>(.*?)<', drawn) == expected


def test_curve_without_points_is_left_out():
    assert lines({"loss": ([0, 1], [np.nan, np.nan])}, ["red"], "x", "step") == ""
    assert lines({"loss": ([0, 1], [2, 1])}, ["red"], "x", "step").count("polyline") == 1


def chromium(tmp_path, html, *options, size="1400,1000"):
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed")
    path = tmp_path / "page.html"
    path.write_text(html, encoding="utf-8")
    quiet = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    where = f"--user-data-dir={tmp_path / 'profile'}"
    command = [program, *quiet, where, f"--window-size={size}", *options, "--dump-dom"]
    done = subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def test_browser_fills_the_table_and_the_viewer(page, tmp_path):
    dom = chromium(tmp_path, page)
    assert 'data-ready="yes"' in dom
    assert re.search(r'<p id="fault"[^>]*hidden', dom)
    body = re.search(r'<tbody id="rows">(.*?)</tbody>', dom, re.S)[1]
    assert body.count("<tr>") == 2
    assert "vesicle" in body
    assert "z = 6" in dom
    assert 'src="data:image/jpeg;base64,' in dom


def test_browser_tells_of_a_script_that_fails(page, tmp_path):
    dom = chromium(tmp_path, page.replace("const names =", "missing(); const names =", 1))
    assert 'data-ready="yes"' not in dom
    assert "The page failed" in dom


def test_browser_sorts_filters_and_jumps(page, tmp_path):
    act = """<script>
      const say = (name, text) => { document.body.dataset[name] = text; };
      const first = () => document.querySelector("#rows tr").textContent;
      const heads = [...document.querySelectorAll("#head button")];
      heads.find((one) => one.textContent === "confidence").click();
      say("sorted", first());
      const least = document.getElementById("by-confidence");
      least.value = "0.5"; least.dispatchEvent(new Event("input"));
      say("left", document.querySelectorAll("#rows tr").length + first());
      document.querySelector(".review .look").click();
      say("ring", document.querySelector("#xy i").style.left);
    </script></body>"""
    dom = chromium(tmp_path, page.replace("</body>", act))
    assert 'data-sorted="one2debris' in dom
    assert 'data-left="1one1vesicle' in dom
    assert 'data-ring="62.5%"' in dom


@pytest.mark.parametrize(
    ("name", "columns", "separator"),
    [
        ("vesicle", COLUMNS, "\t"),
        ('er #2, "rough"', ("note", "class", *COLUMNS[:4]), ","),
        ('"', ("tomogram", *ANGSTROM, "class"), "\t"),
    ],
)
def test_browser_writes_rows_for_the_examples_file(tmp_path, name, columns, separator):
    tomogram, probability, labels, table = scene()
    drawn = picture(tomogram, probability, labels, table, slices=3)
    review = to_name(tomogram, labels, columns=columns, separator=separator)
    page = build_report({"one": drawn}, table, counts_of(table), review=review)
    act = f"""<script>
    const field = document.querySelector(".review input");
    field.value = {json.dumps(name)};
    field.dispatchEvent(new Event("input"));
    document.body.dataset.named = JSON.stringify(document.getElementById("named").value);
    document.querySelector(".review .look").click();
    document.body.dataset.z = document.getElementById("z").textContent;
    </script></body>"""
    dom = chromium(tmp_path, page.replace("</body>", act))
    row = json.loads(unescape(re.search(r'data-named="(.*?)"', dom)[1]))
    (tmp_path / "examples.tsv").write_text(separator.join(columns) + "\n" + row + "\n")
    named = read_examples(tmp_path / "examples.tsv")[list(COLUMNS)]
    place = [49, 19, 6]
    if "x_angstrom" in columns:
        place = [value * 10 - 5.5 for value in place]
    assert named.to_numpy().tolist() == [["one", *place, name]]
    assert 'data-z="z = ' in dom


def test_the_page_says_what_the_rows_to_copy_are_for():
    tomogram, _, labels, table = scene()
    review = to_name(tomogram, labels, columns=("tomogram", *ANGSTROM, "class"), separator=",")
    html = build_report({}, table, counts_of(table), review=review)
    assert "config/one.tsv" in html
    assert "x_angstrom, y_angstrom, z_angstrom, class (Å), separated by commas" in html
    html = build_report({}, table, counts_of(table), review=to_name(tomogram, labels))
    assert "tomogram, x, y, z, class (voxels from 0), separated by tabs" in html
    assert 'id="review"' not in build_report(
        {}, table, counts_of(table), review={**review, "rows": []}
    )


def test_a_thumbnail_outlines_the_instance_at_its_scale():
    labels = np.zeros((5, 60, 60), np.int32)
    labels[2, 20:40, 20:40] = 3
    tomogram = Volume(np.random.default_rng(0).normal(size=labels.shape).astype("f4"), 10.0)
    image = Image.open(
        io.BytesIO(base64.b64decode(thumbnail(tomogram, labels, 3, (30, 30, 2), 20)))
    )
    pixels = np.asarray(image.convert("RGB")).astype(int)
    outlined = np.argwhere(pixels[..., 0] - pixels[..., 2] > 100)
    # 20 voxels of 10 Å in a picture of 700 Å and 128 pixels.
    assert np.ptp(outlined, axis=0) + 1 == pytest.approx([36.6, 36.6], abs=2)


def test_the_inner_point_of_a_bent_object_lies_in_it():
    labels = np.zeros((3, 30, 30), np.int32)
    labels[:, 5:25, 5:9] = labels[:, 21:25, 5:25] = 1
    x, y, z = inner_point(labels, 1, ndimage.find_objects(labels)[0])
    assert labels[z, y, x] == 1


def test_the_inner_point_is_the_most_central_of_the_deep_ones():
    labels = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=(40, 50, 60)), 3) > 0.02
    labels, count = ndimage.label(labels)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels == number
        depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
        deep = np.argwhere(depth >= 0.9 * depth.max())
        away = np.linalg.norm(deep - np.argwhere(mask).mean(axis=0), axis=1)
        x, y, z = inner_point(labels, number, box)
        assert depth[z, y, x] >= 0.9 * depth.max() - 1e-4
        found = np.linalg.norm(np.array([z, y, x]) - np.argwhere(mask).mean(axis=0))
        assert found == pytest.approx(away.min(), abs=1e-3)
    assert count > 2


def test_the_inner_point_of_a_large_object_takes_little_memory():
    z, y, x = np.ogrid[:120, :120, :120]
    labels = ((z - 60) ** 2 + (y - 60) ** 2 + (x - 60) ** 2 < 3400).astype(np.int16)
    (box,) = ndimage.find_objects(labels)
    tracemalloc.start()
    assert inner_point(labels, 1, box) == (60, 60, 60)
    assert tracemalloc.get_traced_memory()[1] < 20 * labels[box].size
    tracemalloc.stop()


def test_a_parted_component_is_drawn_as_one_and_as_parts(tmp_path):
    tomogram, probability, labels, table = scene()
    labels[4:10, 10:30, 30:40] = 1  # now it touches 2
    clusters = pd.DataFrame(
        {
            "instance": [1, 2],
            "component": [1, 1],
            "origin": ["split", "split"],
            "neck_ratio": [0.7, 0.7],
            "voxels": [3600, 2400],
        }
    )
    (split,) = split_pictures(tomogram, labels, clusters)
    assert (split["instance"], split["parts"], split["neck_ratio"]) == (1, 2, 0.7)
    coloured = {
        when: {tuple(pixel) for pixel in rgba(split[when])[..., :3].reshape(-1, 3)}
        for when in ("before", "after")
    }
    grey = {(n, n, n) for n in range(256)}
    assert len(coloured["before"] - grey) == 1
    assert len(coloured["after"] - grey) == 2
    # The wall between them is drawn in one and not in the other.
    wall = np.argwhere((rgba(split["after"]) != rgba(split["before"])).any(axis=2))
    assert len(wall) > 40
    drawn = picture(tomogram, probability, labels, table, slices=2) | {"splits": [split]}
    html = build_report({EVIL: drawn}, table, counts_of(table))
    assert "2 parts, neck 0.70" in html
    assert "window.bad=1<" not in html
    assert Page(html).wrong == []
    assert "Parted components" not in build_report({}, table, counts_of(table))


def test_parts_above_each_other_are_drawn_where_both_are_seen():
    labels = np.zeros((20, 40, 40), np.int32)
    labels[2:14, 10:30, 10:30] = 1
    labels[12:18, 10:30, 10:20] = 2
    tomogram = Volume(np.random.default_rng(0).normal(size=labels.shape).astype("f4"), 10.0)
    clusters = pd.DataFrame(
        {
            "instance": [1, 2],
            "component": [4, 4],
            "origin": ["split", "split"],
            "neck_ratio": [0.6, 0.5],
            "voxels": [4600, 1200],
        }
    )
    (split,) = split_pictures(tomogram, labels, clusters)
    colours = {tuple(pixel) for pixel in rgba(split["after"])[..., :3].reshape(-1, 3)}
    assert len(colours - {(n, n, n) for n in range(256)}) == 2


def test_whole_objects_and_those_whose_other_parts_were_specks_are_not_drawn():
    tomogram, _, labels, _ = scene()
    clusters = pd.DataFrame(
        {
            "instance": [1, 2],
            "component": [1, 2],
            "origin": ["whole", "split"],
            "neck_ratio": [1.0, 0.9],
            "voxels": [2400, 2400],
        }
    )
    assert split_pictures(tomogram, labels, clusters) == []


@pytest.mark.parametrize(
    ("shape", "widest"), [((16, 400, 60), 110), ((16, 40, 40), 640), ((16, 40, 400), 640)]
)
def test_tall_tomograms_fit_on_the_screen(tmp_path, shape, widest):
    labels = np.zeros(shape, np.int32)
    labels[4:10, 5:20, 5:20] = 1
    table = scene()[3].head(1)
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    drawn = picture(Volume(noise, 10.0), None, labels, table, slices=2)
    act = """<script>
      const box = document.getElementById("xy").getBoundingClientRect();
      document.body.dataset.box = box.width + "/" + box.height;
    </script></body>"""
    html = build_report({"one": drawn}, table, counts_of(table)).replace("</body>", act)
    dom = chromium(tmp_path, html, "--virtual-time-budget=3000")
    width, height = map(float, re.search(r'data-box="([\d.]+)/([\d.]+)"', dom).groups())
    assert width <= widest
    assert height <= 730


def test_narrow_page_does_not_scroll_sideways(page, tmp_path):
    inner = base64.b64encode(page.encode()).decode()
    # Headless windows are never narrower than 500 pixels; a frame is.
    outer = f"""<iframe id="f" style="width:400px;height:900px;border:0"></iframe><script>
      const bytes = Uint8Array.from(atob("{inner}"), (c) => c.charCodeAt(0));
      const frame = document.getElementById("f");
      frame.onload = () => {{
        const root = frame.contentDocument.documentElement;
        document.body.dataset.width = root.clientWidth + "/" + root.scrollWidth;
      }};
      frame.srcdoc = new TextDecoder().decode(bytes);
    </script>"""
    dom = chromium(tmp_path, outer, "--virtual-time-budget=5000")
    inside, whole = map(int, re.search(r'data-width="(\d+)/(\d+)"', dom).groups())
    assert inside >= 380
    assert whole <= inside
