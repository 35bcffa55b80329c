"""What goes wrong inside a training: each scene is a context manager that the server enters in the child."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

SCENES: dict[str, Callable[..., AbstractContextManager[Any]]] = {"nothing": nullcontext}
