"""The one error of this package."""

from __future__ import annotations


class CheckpointError(Exception):
    """A checkpoint could not be written, or is not sound; the message names file and reason."""
