"""Errors as a person wants to read them: what is wrong, and the lines of their own code that led there."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import treadle
from treadle.cli.arguments import FAILED, USAGE, UsageError
from treadle.config import ConfigError
from treadle.runs import RunError

_OURS = str(Path(treadle.__file__).parent) + os.sep


def report(error: BaseException, whole: bool = False, place: str = "") -> int:
    """Print an error on standard error; returns the exit code.

    Args:
        error: what was raised.
        whole: print the whole traceback, Treadle's own frames too.
        place: what was going on, such as "training failed in step 3".
    """
    expected = isinstance(error, (ConfigError, UsageError, RunError)) or _is_checkpoint_error(error)
    if whole:
        traceback.print_exception(error)
    shown = error.__cause__ if isinstance(error, ConfigError) and error.__cause__ is not None else error
    frames = [] if whole else user_frames(shown)
    if frames:
        print("Traceback (most recent call last):", file=sys.stderr)
        print("".join(traceback.format_list(frames)).rstrip(), file=sys.stderr)
    if frames and shown is not error:
        print(one_line(shown), file=sys.stderr)
    text = str(error) if expected else one_line(error)
    print(f"treadle: error: {place + ': ' if place else ''}{text}", file=sys.stderr)
    for note in getattr(shown, "__notes__", []):
        print(f"  {note}", file=sys.stderr)
    return USAGE if expected else FAILED


def one_line(error: BaseException) -> str:
    """`ValueError: the message`, as a traceback ends."""
    return "".join(traceback.format_exception_only(type(error), error)[:1]).rstrip() or type(error).__name__


def user_frames(error: BaseException) -> traceback.StackSummary:
    """The frames of an error from the user's own code on: none of Treadle's, none before the user's.

    Empty where no code of the user's was running.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_library(frame.filename)]
    return traceback.StackSummary.from_list(frames)


def _is_library(filename: str) -> bool:
    """Whether a file belongs to Treadle, to Python or to something installed."""
    if filename.startswith((_OURS, "<frozen")):
        return True
    return any(filename.startswith(folder + os.sep) for folder in _library_folders())


def _library_folders() -> set[str]:
    import sysconfig

    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return {sysconfig.get_paths()[name] for name in names}


def _is_checkpoint_error(error: BaseException) -> bool:
    # Only what has loaded torch can have raised one.
    module = sys.modules.get("treadle.checkpoint")
    return module is not None and isinstance(error, module.CheckpointError)
