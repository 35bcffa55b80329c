"""What the pages show runs: Python from top to bottom, commands by name, links by where they lead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from treadle.cli.main import make_parser
from treadle.config import Experiment

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRELUDE = re.compile(r"^<!-- prelude\n(.*?)^-->$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)")
ANCHOR = re.compile(r"\]\(([^)#\s]*)#([\w-]+)\)")
HEADING = re.compile(r"^#+ .+$", re.MULTILINE)


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a language, each with the number of the line before it."""
    text = page.read_text()
    found = [(match.start(2), match[2]) for match in BLOCK.finditer(text) if match[1] == language]
    if language == "python":
        found = [(match.start(1), match[1]) for match in PRELUDE.finditer(text)] + found
    return [(text.count("\n", 0, start), block) for start, block in found]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=named)
def test_python_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "snippets"}
    for line, block in blocks(page, "python"):
        exec(compile("\n" * line + block, str(page), "exec"), names)


def test_the_pages_have_snippets() -> None:
    assert {"README.md", "docs/guide.md"} <= {named(page) for page in WITH_PYTHON}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_and_targets_are_there(page: Path) -> None:
    actions = make_parser()._subparsers._group_actions  # type: ignore[union-attr]
    commands = set(actions[0].choices)  # type: ignore[arg-type]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for _, block in blocks(page, "bash"):
        for line in block.splitlines():
            words = line.split("#")[0].split()
            if words[:1] == ["treadle"] and not words[1].startswith("-"):
                assert words[1] in commands, line
            elif words[:1] == ["make"]:
                assert words[1] in targets, line
            elif words[:1] == ["python"] and words[1] != "-m":
                assert (ROOT / words[1]).is_file(), line


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_configurations_can_be_read(page: Path, tmp_path: Path) -> None:
    for number, (_, block) in enumerate(blocks(page, "yaml")):
        (tmp_path / f"{number}.yaml").write_text(block)
        experiment = Experiment.read(tmp_path / f"{number}.yaml")
        experiment.build_trainer()
        experiment.build_task()
        for name in experiment.data_names:
            experiment.build_data(name)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    for target, heading in ANCHOR.findall(page.read_text()):
        if "://" not in target:
            there = (page.parent / target if target else page).read_text()
            headings = [
                re.sub(r"[^\w -]", "", line[1:].lower().lstrip("# ")) for line in HEADING.findall(there)
            ]
            assert heading in [line.replace(" ", "-") for line in headings], f"{target}#{heading}"
