from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from treadle.cli.main import main
from treadle.data import Digits

OWN = """
import json
import torch, treadle

class Own(treadle.SupervisedTask):
    def load_sample(self, path):
        with open(path) as file:
            return torch.tensor(json.load(file))
    def store_result(self, result, path):
        with open(path, "w") as file:
            print(int(result.argmax()), file=file)

class Pair(treadle.SupervisedTask):
    def postprocess(self, output):
        return {"scores": output, "label": output.argmax(1)}

class Fails(treadle.SupervisedTask):
    def store_result(self, result, path):
        with open(path, "w") as file:
            file.write("half")
        raise RuntimeError("no more paper")
"""


@pytest.fixture
def images() -> np.ndarray:
    return Digits("val").tensors[0][:7].numpy()


def predict(*words: str) -> int:
    return main(["predict", "runs/small", *words])


def test_every_format_in_and_out_gives_the_same_numbers(fitted: Path, images: np.ndarray) -> None:
    np.save("in.npy", images.astype(np.float64))
    assert predict("in.npy", "-o", "expected.npy") == 0
    expected = np.load("expected.npy")
    assert expected.shape == (7, 10)
    assert expected.dtype == np.float32
    assert (expected.argmax(1) == Digits("val").tensors[1][:7].numpy()).mean() > 0.5

    np.savez("in.npz", images=images)
    np.savetxt("in.csv", images, delimiter=",", header=",".join(f"p{i}" for i in range(64)), comments="")
    Path("in.json").write_text(json.dumps(images.tolist()))
    safetensors.numpy.save_file({"x": images}, "in.safetensors")
    for source in ("in.npz", "in.csv", "in.json", "in.safetensors"):
        assert predict(source, "-o", "out.npy", "--batch-size", "7") == 0
        np.testing.assert_allclose(np.load("out.npy"), expected, rtol=1e-5, atol=1e-6)

    for target in ("out.npz", "out.csv", "out.json", "out.safetensors"):
        assert predict("in.npy", "-o", target) == 0
    np.testing.assert_array_equal(np.load("out.npz")["prediction"], expected)
    np.testing.assert_array_equal(np.loadtxt("out.csv", delimiter=",", dtype=np.float32), expected)
    np.testing.assert_array_equal(np.array(json.loads(Path("out.json").read_text()), np.float32), expected)
    np.testing.assert_array_equal(safetensors.numpy.load_file("out.safetensors")["prediction"], expected)


@pytest.fixture
def own(fitted: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    (fitted.parent.parent / "own_predict.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_predict", raising=False)
    np.save("in.npy", images)
    return fitted / "config.json"


def name_task(config: Path, name: str) -> None:
    document = json.loads(config.read_text())
    document["task"]["class_path"] = f"own_predict.{name}"
    config.write_text(json.dumps(document))


def test_the_tasks_own_reading_and_writing(own: Path, images: np.ndarray) -> None:
    name_task(own, "Own")
    Path("one.digit").write_text(json.dumps(images[0].tolist()))
    assert predict("one.digit", "-o", "answer.label", "--allow", "own_predict") == 0
    assert predict("in.npy", "-o", "all.npy", "--allow", "own_predict") == 0
    assert int(Path("answer.label").read_text()) == np.load("all.npy")[0].argmax()


def test_several_outputs(own: Path, capsys) -> None:
    name_task(own, "Pair")
    assert predict("in.npy", "-o", "out.npz", "--allow", "own_predict") == 0
    found = np.load("out.npz")
    assert found["scores"].shape == (7, 10)
    assert found["label"].tolist() == found["scores"].argmax(1).tolist()
    capsys.readouterr()
    assert predict("in.npy", "-o", "out.csv", "--allow", "own_predict") == 2
    assert "the predictions are scores, label: use .npz or .json" in capsys.readouterr().err


def test_a_result_that_cannot_be_written_leaves_the_old_one(own: Path, capsys) -> None:
    name_task(own, "Fails")
    Path("out.txt").write_text("old")
    assert predict("in.npy", "-o", "out.txt", "--allow", "own_predict") == 1
    err = capsys.readouterr().err
    assert "in store_result" in err
    assert "no more paper" in err
    assert Path("out.txt").read_text() == "old"
    assert not [name for name in os.listdir() if "tmp" in name]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.npy", None, "there is no such file"),
        ("bad.npy", b"not an array", "cannot be read"),
        ("bad.npz", b"PK\x03\x04", "cannot be read"),
        ("bad.safetensors", b"\xff" * 20, "cannot be read"),
        ("bad.json", b"{", "cannot be read"),
        ("ragged.json", b"[[1, 2], [3]]", "cannot be read"),
        ("words.json", b'["a", "b"]', "no type of numbers"),
        ("number.json", b"3", "without rows"),
        ("empty.json", b"{}", "has no arrays"),
        ("bad.csv", b"1,2\n3,x\n", "row 2: 'x' is no number"),
        ("ragged.csv", b"1,2\n3\n", "row 2: 1 columns, not 2"),
        ("empty.csv", b"a,b\n", "it has no rows"),
        ("photo.png", b"\x89PNG", "SupervisedTask defines no load_sample"),
    ],
)
def test_inputs_that_cannot_be_read(
    name: str, content: bytes | None, said: str, fitted: Path, capsys
) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    assert predict(name, "-o", "out.npy") == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert not Path("out.npy").exists()


def test_pickled_arrays_are_refused(fitted: Path, capsys) -> None:
    np.save("objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert predict("objects.npy", "-o", "out.npy") == 2
    assert "allow_pickle=False" in capsys.readouterr().err


def test_outputs_that_cannot_be_written_are_said_before_anything_is_read(fitted: Path, capsys) -> None:
    Path("in.csv").write_text("1,2\n")
    assert predict("in.csv", "-o", "no/such/folder/out.npy") == 2
    assert "there is no folder no/such/folder" in capsys.readouterr().err
    assert predict("in.csv", "-o", "out.png") == 2
    assert "SupervisedTask defines no store_result" in capsys.readouterr().err


def test_samples_of_another_shape_are_no_traceback_of_ours(fitted: Path, capsys) -> None:
    np.save("in.npy", np.zeros((3, 5), np.float32))
    assert predict("in.npy", "-o", "out.npy") == 1
    err = capsys.readouterr().err
    assert "shapes cannot be multiplied" in err
    assert "Traceback" not in err
