from __future__ import annotations

import math

import pytest

from treadle.config import ConfigError
from treadle.config.reading import parse, plain, read_file


def test_what_looks_like_a_number_is_one_and_nothing_else_is() -> None:
    text = (
        "{a: 1e-3, b: 1E5, c: .5, d: 010, e: 0x1f, f: -3, g: on, h: 12:30, i: 2024-01-01, j: true, k: , l: ~}"
    )
    assert parse(text, "") == {
        "a": 1e-3,
        "b": 1e5,
        "c": 0.5,
        "d": 10,
        "e": 31,
        "f": -3,
        "g": "on",
        "h": "12:30",
        "i": "2024-01-01",
        "j": True,
        "k": None,
        "l": None,
    }
    assert type(parse("a: 1e5", "")["a"]) is float
    assert parse("[.inf, -.inf]", "") == [math.inf, -math.inf]
    assert math.isnan(parse(".nan", ""))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml: line 3, column 1: not valid YAML: the key 'a' is given twice"),
        ("a: {b: 1, b: 1}", "the key 'b' is given twice"),
        ("a: [1, 2", "f.yaml: line 1"),
        ("1: a", "keys are words; '1' is int"),
        ("true: a", "keys are words"),
        ("? [a]\n: b", "keys are words"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: &x [*x]", "f.yaml: "),
        ("a: 1\n---\nb: 2", "f.yaml: "),
        ("\ta: 1", "f.yaml: line 1"),
        ("a: " + "9" * 5000, "a number of 5000 digits"),
        ("[" * 3000, "f.yaml: "),
    ],
)
def test_what_is_not_plain_yaml_is_one_line_with_the_place(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_anchors_and_merge_keys_work_and_share_nothing() -> None:
    found = parse("a: &x {p: [1]}\nb: *x\nc: {<<: *x, q: 2}", "")
    assert found == {"a": {"p": [1]}, "b": {"p": [1]}, "c": {"p": [1], "q": 2}}
    found["a"]["p"].append(2)
    assert found["b"] == {"p": [1]}


def test_ten_lines_that_stand_for_a_billion_values_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(ConfigError, match="more than 100000 values"):
        parse("\n".join(lines), "")


def test_files_that_cannot_be_read_say_why(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: there is no such file"):
        read_file(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_file(tmp_path / "binary.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * (5 << 20))
    with pytest.raises(ConfigError, match="no configuration"):
        read_file(tmp_path / "big.yaml")
    with pytest.raises(ConfigError, match="directory"):
        read_file(tmp_path)


def test_plain_data_are_copied_and_anything_else_is_refused() -> None:
    given = {"a": [1, {"b": None}]}
    copied = plain(given, "")
    assert copied == given
    copied["a"].append(1)
    assert given == {"a": [1, {"b": None}]}
    with pytest.raises(ConfigError, match=r"a\.0: .*is not plain data"):
        plain({"a": [object()]}, "")
    with pytest.raises(ConfigError, match="keys are words"):
        plain({1: 2}, "")
