"""A rewind to counts as well as to a step: points of one step can be told apart."""

from __future__ import annotations

import random

from treadle.runs.writer import WritableStore


def test_a_rewind_to_counts_is_the_store_as_it_was() -> None:
    chance = random.Random(0)
    for _ in range(30):
        store, step, points = WritableStore(":memory:"), 0, []
        for _ in range(chance.choice((3, 150, 500))):
            step += chance.choice((0, 0, 1))
            points.append((chance.choice("abc"), step, chance.random()))
        cut = chance.randrange(len(points) + 1)
        store.append_steps(points[:cut])
        counts = store.counts()
        assert sum(counts.values()) == cut
        store.append_steps(points[cut:])
        store.rewind(max((at for _, at, _ in points[:cut]), default=0), counts)
        assert store.counts() == counts
        store.append_steps(points[cut:])  # and it goes on as if it had never gone further
        for name in "abc":
            expected = [(at, value) for known, at, value in points if known == name]
            if expected:
                steps, values = store.series(name)
                assert list(zip(steps.tolist(), values.tolist(), strict=True)) == expected
        store.close()


def test_without_counts_all_points_of_the_step_stay() -> None:
    store = WritableStore(":memory:")
    store.append_steps([("a", 1, 1.0), ("a", 1, 2.0), ("b", 1, 3.0)])
    store.rewind(1)
    assert store.counts() == {"a": 2, "b": 1}
    store.rewind(1, {"a": 1})
    assert store.counts() == {"a": 1}
    store.close()
