"""The pictures of the README are of runs as they are now."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs import pictures

ROOT = Path(__file__).parents[2]


def words(path: Path) -> list[str]:
    """What is written in the picture of a terminal, without its numbers: times differ from run to run."""
    texts = re.findall(r"<text[^>]*>(.*?)</text>", path.read_text(), flags=re.DOTALL)
    return re.findall(r"[a-z][a-zA-Z]*", html.unescape(" ".join(texts)))


def test_the_terminal_looks_as_it_does_now(tmp_path: Path) -> None:
    pictures.terminal(tmp_path / "terminal.svg")
    now, kept = words(tmp_path / "terminal.svg"), words(pictures.PICTURES / "terminal.svg")
    assert now == kept, "the display has changed: run python docs/pictures.py"
    text = (pictures.PICTURES / "terminal.svg").read_text()
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace(
        "https://www.textualize.io", ""
    )
    assert str(Path.home()) not in text


def test_the_report_can_be_taken(tmp_path: Path) -> None:
    pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
    if not Path(os.environ.get("CHROMIUM", "/usr/bin/chromium")).exists():
        pytest.skip("there is no chromium")
    # In a process of its own: a browser may be open in this one already.
    program = (
        "import sys; from pathlib import Path; from docs import pictures\n"
        "pictures.report(Path(sys.argv[1]), epochs=3)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "report.png")]
    subprocess.run(command, cwd=ROOT, timeout=120, check=True)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "report.png").stat().st_size > 30_000


def test_every_picture_is_shown_and_small() -> None:
    page = (ROOT / "README.md").read_text()
    for picture in pictures.PICTURES.iterdir():
        assert f"docs/pictures/{picture.name}" in page
        assert picture.stat().st_size < 250_000
