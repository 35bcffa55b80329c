"""Libraries that are imported where something needs them, and an error that says how to get them."""

from __future__ import annotations

import importlib
from typing import Any


def optional(module: str, purpose: str, extra: str) -> Any:
    """Import a module of a library that Treadle does without.

    Args:
        module: its dotted name.
        purpose: what needs it, the beginning of a sentence: "pictures".
        extra: the extra of Treadle that installs it.

    Raises:
        ImportError: it is not installed, or too old; the text says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing(module, purpose, extra, error) from error


def missing(module: str, purpose: str, extra: str, error: ImportError) -> ImportError:
    """The error for a library that could not be imported."""
    library = module.partition(".")[0]
    library = {"sklearn": "scikit-learn"}.get(library, library)
    return ImportError(
        f"{purpose} need {library}: pip install 'treadle[{extra}]' ({error})", name=error.name or module
    )
