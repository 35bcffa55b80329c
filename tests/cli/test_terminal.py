"""What is on the screen of a real terminal of 80 columns at the end, and what is in a log file."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")

CONFIG = """\
seed: 0
task:
  class_path: treadle.SupervisedTask
  init_args:
    model: {class_path: torch.nn.Linear, init_args: {in_features: 64, out_features: 10}}
    loss: torch.nn.functional.cross_entropy
    lr: 0.1
    metrics: {accuracy: {class_path: treadle.metrics.Accuracy}}
data:
  train:
    class_path: treadle.Loader
    init_args: {dataset: {class_path: treadle.data.Digits}, batch_size: 256}
  val:
    class_path: treadle.Loader
    init_args: {dataset: {class_path: treadle.data.Digits, init_args: {split: val}}, batch_size: 256}
trainer:
  max_epochs: 3
  callbacks: [{class_path: warns.Warns}]
"""
WARNS = """\
import logging, sys, time, warnings
import treadle

class Warns(treadle.Callback):
    def on_step_end(self, state):
        if state.progress.step in (2, 9):
            time.sleep(0.15)  # let the bars be drawn before
            warnings.warn(f"a warning in step {state.progress.step}")
            logging.getLogger("treadle").warning("a line of the log in step %d", state.progress.step)
            print("printed in step", state.progress.step)
        time.sleep(0.02)
"""


class Screen:
    """As much of a terminal as the display uses: lines, the cursor, erasing a line."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines = [""]
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        for part in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|\x1b.|[\s\S]", text):
            if part.startswith("\x1b"):
                self._escape(part)
            elif part == "\n":
                self._to(self.row + 1)
                self.column = 0
            elif part == "\r":
                self.column = 0
            else:
                if self.column == self.columns:
                    self._to(self.row + 1)
                    self.column = 0
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + part + line[self.column + 1 :]
                self.column += 1

    def _to(self, row: int) -> None:
        self.row = row
        while row >= len(self.lines):
            self.lines.append("")

    def _escape(self, part: str) -> None:
        number = int(re.sub(r"\D", "", part) or 1)
        if part.endswith("A"):
            self._to(max(0, self.row - number))
        elif part.endswith("K"):
            assert part == "\x1b[2K", part
            self.lines[self.row] = ""
        else:
            assert part[-1] in "mhl", part


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("sklearn")
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "warns.py").write_text(WARNS)
    return tmp_path


def command(folder: Path) -> list[str]:
    program = (
        "import sys, torch; torch.set_num_threads(1); sys.path.insert(0, '.'); sys.argv[0] = 'treadle'\n"
        "from treadle.cli.main import main; sys.exit(main())"
    )
    return [sys.executable, "-c", program, "fit", "config.yaml", "--allow", "warns"]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    return {**kept, "TERM": "xterm-256color"}


def on_a_terminal(folder: Path, columns: int) -> str:
    """Everything that a run sends to a terminal."""
    import fcntl
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    with subprocess.Popen(
        command(folder), cwd=folder, stdin=slave, stdout=slave, stderr=slave, env=environment()
    ) as process:
        os.close(slave)
        said = b""
        try:
            while data := os.read(master, 65536):
                said += data
        except OSError:  # the other end is closed
            pass
        assert process.wait(60) == 0, said.decode()
    os.close(master)
    return said.decode()


def test_a_terminal_of_80_columns_stays_readable(folder: Path) -> None:
    said = on_a_terminal(folder, 80)
    assert "\x1b[?25l" in said  # it was a live display
    assert said.rfind("\x1b[?25h") > said.rfind("\x1b[?25l")
    screen = Screen(80)
    screen.feed(said)
    lines = [line.rstrip() for line in screen.lines]
    for step in (2, 9):
        place = lines.index(f"treadle: warning: a warning in step {step}")
        assert lines[place + 1 : place + 3] == [
            f"a line of the log in step {step}",
            f"printed in step {step}",
        ]
    rows = [line.split() for line in lines if re.match(r" +\d+ +\d+  train  ", line)]
    assert [(row[0], row[1]) for row in rows] == [("1", "6"), ("2", "12"), ("3", "18")]
    assert len([line for line in lines if re.match(r" +val  ", line)]) == 3
    assert not [line for line in lines if "━" in line or "samples/s" in line]
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("report          runs/run/report.html") for line in lines)


def test_a_log_file_has_plain_lines(folder: Path) -> None:
    with open(folder / "log", "w") as log:
        subprocess.run(
            command(folder), cwd=folder, stdout=log, stderr=log, env=environment(), timeout=60, check=True
        )
    text = (folder / "log").read_text()
    assert "\x1b" not in text
    assert "\r" not in text
    lines = text.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("epoch ")] == [
        ["epoch", "1/3"],
        ["epoch", "2/3"],
        ["epoch", "3/3"],
    ]
    assert "treadle: warning: a warning in step 2" in lines
    assert "a line of the log in step 9" in lines
