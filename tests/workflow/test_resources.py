"""What jobs ask for: by the size in the volume's header, and by the attempt."""

import re

import numpy as np
import pytest
from small_project import REPOSITORY, run, write_project

from tomocensus.io import write_mrc
from tomocensus.volume import Volume

VOLUME_STAGES = ("inspect", "segment", "cluster", "embed", "measure", "picture")


def requests(project, *arguments):
    """Memory and time of each rule's job in a dry run."""
    status, text = run(project, "-n", *arguments)
    assert status == 0, text
    found = {}
    for rule, body in re.findall(r"^(?:local)?rule (\w+):\n((?: +.*\n)+)", text, re.MULTILINE):
        asked = dict(re.findall(r"(\w+)=(\d+)\b", body.partition("resources:")[2]))
        found[rule] = {key: int(value) for key, value in asked.items()}
    return found


@pytest.fixture
def project(tmp_path):
    write_project(tmp_path / "project")
    return tmp_path / "project"


def write_header(project, shape):
    """Write a volume of bytes that takes no space on the disk."""
    path = project / "data" / "one.mrc"
    write_mrc(path, Volume(np.zeros((1, 4, 4), np.int8), 20.0))
    content = bytearray(path.read_bytes()[:1024])
    content[0:12] = np.array(shape[::-1], "<i4").tobytes()
    content[28:40] = np.array(shape[::-1], "<i4").tobytes()
    path.write_bytes(content)
    with open(path, "r+b") as stream:
        stream.truncate(1024 + int(np.prod(shape)))


def test_memory_and_time_follow_the_volume_and_every_rule_asks(project):
    small = requests(project)
    write_header(project, (1000, 1000, 1000))
    large = requests(project)
    assert set(small) == set(large) > set(VOLUME_STAGES)
    for rule in VOLUME_STAGES:
        # A gigavoxel as float32 alone takes 4 GB.
        assert large[rule]["mem_mb"] >= small[rule]["mem_mb"] + 4000, rule
        assert large[rule]["runtime"] > small[rule]["runtime"], rule
    for rule, asked in small.items():
        if rule != "everything":
            assert asked["mem_mb"] >= 500, rule
            assert asked["runtime"] >= 10, rule
    assert {rule for rule, asked in large.items() if asked.get("gpu")} == {"segment", "embed"}
    assert requests(project, "--force", "train_segmenter")["train_segmenter"]["gpu"] == 1


def test_a_limit_of_gpus_is_that_of_each_machine_not_of_a_whole_cluster(project):
    snakefile = project / "Snakefile"
    ask = 'print("LOCAL", workflow.resource_scopes.is_local("gpu"))'
    snakefile.write_text(f'include: "{REPOSITORY}/Snakefile"\n{ask}\n')
    status, text = run(project, "-n", "--quiet", "--snakefile", snakefile)
    assert status == 0, text
    assert "LOCAL True" in text


def test_a_second_attempt_asks_for_more(project):
    first, second = requests(project), requests(project, "--attempt", "2")
    for rule, asked in first.items():
        if rule != "everything":
            assert second[rule]["mem_mb"] == 2 * asked["mem_mb"], rule
            assert second[rule]["runtime"] == 2 * asked["runtime"], rule


def test_a_retry_of_another_programs_map_asks_for_memory_for_levels(project):
    write_header(project, (200, 1000, 1000))
    sheet = project / "tomograms.tsv"
    header, *rows = sheet.read_text().splitlines()
    own = requests(project, "--attempt", "2")["cluster"]["mem_mb"]
    filled = [row + "\tdata/one.mrc" for row in rows]
    sheet.write_text("\n".join([header + "\tprobability", *filled]) + "\n")
    assert requests(project)["cluster"]["mem_mb"] == own / 2
    given = requests(project, "--attempt", "2")["cluster"]["mem_mb"]
    assert given - own == pytest.approx(40 * 200, rel=0.01)
