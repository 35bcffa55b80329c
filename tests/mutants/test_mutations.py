"""The planted mistakes fit the code as it is now; `make mutants` plants them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.mutants.mutations import MUTATIONS, Mutation

SOURCE = Path(__file__).parents[2] / "src" / "treadle"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_applies_in_one_place(mutation: Mutation) -> None:
    assert (SOURCE / mutation.file).read_text().count(mutation.old) == 1
