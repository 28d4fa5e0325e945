import base64

import pytest

from tomocensus.errors import InputError
from tomocensus.status import last_line, main, project_status, screen


@pytest.fixture
def project(tmp_path):
    """Tomogram a is done up to clusters, b failed in segmentation, nothing else began."""
    (tmp_path / "config").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mrc").touch()
        (tmp_path / "results" / name).mkdir(parents=True)
    (tmp_path / "config" / "tomograms.tsv").write_text(
        "tomogram\tpath\tprobability\na\ta.mrc\t\nb\tb.mrc\t\nc\tc.mrc\tc.mrc\n"
    )
    for file in ("input", "segment", "cluster"):
        (tmp_path / "results" / "a" / f"{file}.json").write_text("{}")
    (tmp_path / "results" / "b" / "input.json").write_text("{}")
    log = tmp_path / "logs" / "segment" / "b.log"
    log.parent.mkdir(parents=True)
    log.write_text("predicting slices\nERROR: b.mrc: holds no finite value.\n")
    return tmp_path


def states(project):
    return {(job.stage, job.tomogram): job.state for job in project_status(project)}


def test_states_come_from_results_and_logs(project):
    found = states(project)
    assert found["cluster", "a"] == "done"
    assert found["embed", "a"] == "left"
    assert found["segment", "b"] == "failed"
    assert found["census", ""] == "left"
    assert ("segment", "c") not in found
    # Its outlines were asked for.
    (project / "results" / "c" / "segment.json").write_text("{}")
    assert states(project)["segment", "c"] == "done"


def test_running_is_what_is_marked_incomplete_while_a_run_holds_the_project(project):
    marks = project / ".snakemake" / "incomplete"
    marks.mkdir(parents=True)
    encoded = base64.urlsafe_b64encode(b"results/a/embed.json").decode()
    (marks / encoded).write_text("")
    assert states(project)["embed", "a"] == "left"
    # Snakemake cuts names that are too long for the file system.
    long = base64.urlsafe_b64encode(b"results/c/cluster.json").decode()
    (marks / f"@{long[:9]}" / f"@{long[9:14]}").mkdir(parents=True)
    (marks / f"@{long[:9]}" / f"@{long[9:14]}" / long[14:]).write_text("")
    (marks / "no mark").write_text("")
    (project / ".snakemake" / "locks").mkdir()
    assert states(project)["embed", "a"] == "left"
    (project / ".snakemake" / "locks" / "0.input.lock").write_text("")
    assert states(project)["embed", "a"] == states(project)["cluster", "c"] == "running"


def test_screen_tells_numbers_reason_and_log(project, capsys):
    assert main([str(project)]) == 1
    text = capsys.readouterr().out
    assert "holds no finite value" in text
    assert "logs/segment/b.log" in text
    row = next(line for line in text.splitlines() if line.startswith("segment"))
    assert row.split() == ["segment", "1", "0", "1", "0"]
    assert len(text.splitlines()) < 30


def test_a_long_traceback_is_a_failure(project):
    log = project / "logs" / "segment" / "b.log"
    log.write_text("Traceback (most recent call last):\n" + "  File x\n" * 900 + "OutOfMemory: no")
    assert states(project)["segment", "b"] == "failed"
    (project / "logs" / "review.log").write_text("ERROR: no encoder.\n")
    assert states(project)["review", ""] == "failed"


def test_the_sheet_that_the_configuration_names_is_taken(project):
    (project / "config" / "tomograms.tsv").rename(project / "config" / "mine.tsv")
    with pytest.raises(InputError, match="no such sample sheet"):
        project_status(project)
    (project / "config" / "config.yaml").write_text("tomograms: config/mine.tsv\n")
    assert states(project)["cluster", "a"] == "done"
    assert project_status(project) == project_status(project, "config/mine.tsv")


def test_screen_stays_one_screen_with_thousands_of_failures(project):
    jobs = [job for job in project_status(project) if job.state == "failed"] * 5000
    text = screen(jobs, locked=False)
    assert len(text.splitlines()) < 40
    assert "and 4990 more" in text


def test_a_log_that_ends_well_is_no_failure(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("WARNING: something\nwrote models/segmenter\n")
    assert last_line(log) == ""
    log.write_text("Traceback (most recent call last):\n  ...\nMemoryError\n")
    assert last_line(log) == "MemoryError"
    assert last_line(tmp_path / "none.log") == ""


def test_a_wrong_folder_is_told(tmp_path, capsys):
    with pytest.raises(InputError, match="no such folder"):
        project_status(tmp_path / "none")
    assert main([str(tmp_path / "none")]) == 2
    assert "ERROR" in capsys.readouterr().err
