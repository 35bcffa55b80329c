"""What a run ran on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

from treadle.runs import git

PACKAGES = ("treadle", "torch", "numpy", "safetensors")


def collect_environment(folder: Path | str | None = None) -> dict[str, Any]:
    """Versions, platform, command line and the commit of `folder` (the current one), as plain data.

    {"python", "platform", "machine", "cpu_count", "versions": {package: version or None}, "command": [...],
    "git": {"commit": hex or None, "dirty": True, False or None} or None}. Nothing is imported and no process
    started for it; the name of the computer and of the user are left out on purpose.
    """
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "versions": {name: _version(name) for name in PACKAGES},
        "command": list(sys.argv),
        "git": _git(folder),
    }


def _git(folder: Path | str | None) -> dict[str, Any] | None:
    try:
        return git.describe(Path.cwd() if folder is None else Path(folder))
    except FileNotFoundError:  # the current folder was deleted
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
