"""Finding runs among folders."""

from __future__ import annotations

import json

import pytest

from treadle.runs import Run, RunError, find, list_runs


@pytest.fixture
def place(tmp_path):
    for number, name in enumerate(("digits", "sweep/a", "sweep/b", "digits")):
        with Run.create(tmp_path / name, name=f"name {number % 3}") as run:
            fields = {**run.fields, "created": 1000.0 + number, "id": f"{number % 2}{number}aabbcc"}
        (run.path / "run.json").write_text(json.dumps(fields))
    (tmp_path / "other").mkdir()
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def names(runs):
    return [run.path.name for run in runs]


def test_newest_first(place):
    assert names(list_runs(place)) == ["digits-2", "b", "a", "digits"]
    assert names(list_runs(place / "sweep")) == ["b", "a"]
    assert list_runs(place / "nowhere") == []


def test_damaged_ones_are_skipped_and_named(place):
    (place / "sweep" / "a" / "run.json").write_text("{")
    runs = list_runs(place)
    assert names(runs) == ["digits-2", "b", "digits"]
    ((path, reason),) = runs.skipped
    assert path == place / "sweep" / "a"
    assert "run.json: is damaged" in reason


def test_links_and_insides_of_runs_are_not_followed(place):
    (place / "loop").symlink_to(place)
    (place / "digits" / "checkpoints" / "inner").mkdir()
    (place / "digits" / "checkpoints" / "inner" / "run.json").write_text("{")
    runs = list_runs(place)
    assert len(runs) == 4
    assert runs.skipped == []


def test_found_by_path_folder_name_id_and_its_beginning(place):
    assert find(place, place / "sweep" / "a").path.name == "a"
    assert find(place, "b").path.name == "b"
    assert find(place, "name 0").path.name == "digits-2"
    assert find(place, "11aabbcc").path.name == "a"
    assert find(place, "02a").path.name == "b"


def test_not_found_or_ambiguous_says_what_there_is(place):
    with pytest.raises(RunError, match=r"no run 'zzz'; there are 13aabbcc \(digits-2\), 02aabbcc \(b\)"):
        find(place, "zzz")
    fields = json.loads((place / "digits" / "run.json").read_text())
    (place / "digits" / "run.json").write_text(json.dumps({**fields, "id": "02axxxxx"}))
    with pytest.raises(RunError, match="fits several runs: 02aabbcc"):
        find(place, "02a")
