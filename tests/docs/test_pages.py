"""What the pages say of the project is what the project says of itself."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_dependency_is_explained() -> None:
    table = project()["project"]
    page = (ROOT / "docs" / "dependencies.md").read_text()
    required = [
        *table["dependencies"],
        *(one for group in table["optional-dependencies"].values() for one in group),
    ]
    for requirement in required:
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None
        assert name[0] in page, f"docs/dependencies.md does not explain {name[0]}"
    for extra in table["optional-dependencies"]:
        assert f"`{extra}`" in page, f"docs/dependencies.md does not explain the extra {extra}"


def test_what_users_are_told_to_install_is_there() -> None:
    extras = set(project()["project"]["optional-dependencies"])
    told = {}
    for folder, pattern in (("src", "*.py"), ("examples", "*.py"), ("docs", "*.md"), (".", "README.md")):
        for path in (ROOT / folder).rglob(pattern) if folder != "." else [ROOT / pattern]:
            text = path.read_text()
            told |= dict.fromkeys(re.findall(r"treadle\[(\w+)\]", text), path)
            told |= dict.fromkeys(re.findall(r'(?:optional|missing)\([^)]*"(\w+)"(?:, error)?\)', text), path)
    assert {"plots", "sklearn", "export", "metrics"} <= set(told)
    assert set(told) <= extras, {name: str(path) for name, path in told.items() if name not in extras}


def test_the_layers_are_those_that_are_held() -> None:
    contract = project()["tool"]["importlinter"]["contracts"][0]
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawn = page[page.index("## Layers") : page.index("## Hooks")]
    places = [drawn.find("\n" + layer.replace(" | ", ", ")) for layer in contract["layers"]]
    missing = [layer for layer, place in zip(contract["layers"], places, strict=True) if place < 0]
    assert not missing, f"docs/architecture.md does not draw the layers {missing}"
    assert places == sorted(places)
