"""The files are what others can read, and nothing but what was written is ever read."""

import builtins
import hashlib
import importlib
import json
import marshal
import os
import pickle
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from treadle.checkpoint import CheckpointError, newest, read, snapshot, weights_sha256, write
from treadle.checkpoint.manifest import FILES, MANIFEST, MODEL, STATE, TRAINING, Manifest

NAMES = [*FILES, MANIFEST]


def small_contents(value=1.0):
    weight = torch.full((2, 3), value)
    return {
        "model": {"a": weight, "tied": weight, "b": torch.arange(4).to(torch.bfloat16)},
        "optimizers": {"main": {0: {"momentum": torch.full((3,), value), "step": 7}}},
        "loss": [value, float("nan"), (True, None)],
    }


def forge(path, name, data):
    """Put other bytes in a file and make the manifest fit, as someone with bad intent would."""
    (path / name).write_bytes(data)
    manifest = Manifest.from_bytes((path / MANIFEST).read_bytes())
    files = {**manifest.files, name: (len(data), hashlib.sha256(data).hexdigest())}
    (path / MANIFEST).write_bytes(Manifest(manifest.step, manifest.score, manifest.version, files).to_bytes())


def test_anyone_can_read_the_weights(tmp_path):
    contents = small_contents()
    path = write(tmp_path, 3, contents)
    assert path.name == "step-00000003"
    assert sorted(os.listdir(path)) == sorted(NAMES)
    theirs = load_file(path / MODEL)
    assert theirs.keys() == {"a", "b"}  # tied storage is there once
    assert torch.equal(theirs["a"], contents["model"]["a"])
    assert torch.equal(theirs["b"], contents["model"]["b"])
    assert load_file(path / TRAINING)["optimizers.main.0.momentum"].tolist() == [1.0] * 3


def test_weights_that_others_wrote_are_read(tmp_path):
    path = write(tmp_path, 3, {"model": {"a": torch.zeros(2, 3), "s": torch.zeros((), dtype=torch.uint8)}})
    mine = {"a": torch.rand(2, 3), "s": torch.tensor(3, dtype=torch.uint8)}
    save_file(mine, tmp_path / "other.safetensors", metadata={"format": "pt"})
    forge(path, MODEL, (tmp_path / "other.safetensors").read_bytes())
    assert weights_sha256(read(path)["model"]) == weights_sha256(mine)


def test_tied_weights_come_back_tied(tmp_path):
    for contents in (small_contents(), snapshot(small_contents())):
        model = read(write(tmp_path, 1, contents))["model"]
        assert model["a"] is model["tied"]
        assert model["b"] is not model["a"]


def test_views_of_one_storage_that_are_not_the_same_are_not_tied(tmp_path):
    whole = torch.arange(6.0)
    model = {
        "row": whole[:3],
        "other": whole[3:],
        "square": whole.reshape(2, 3),
        "turned": whole.reshape(2, 3).T,
    }
    loaded = read(write(tmp_path, 1, {"model": model}))["model"]
    for name, tensor in model.items():
        assert torch.equal(loaded[name], tensor)
    empty = read(write(tmp_path, 2, {"model": {"e": torch.empty(0), "f": torch.empty(2, 0)}}))["model"]
    assert empty["f"].shape == (2, 0)


@pytest.mark.parametrize("name", NAMES)
def test_every_flipped_byte_is_noticed(tmp_path, name):
    write(tmp_path, 1, small_contents(1.0))
    path = write(tmp_path, 2, small_contents(2.0))
    good = (path / name).read_bytes()
    for position in range(len(good)):
        for flip in (1 << position % 8, 0xFF):
            damaged = bytearray(good)
            damaged[position] ^= flip
            (path / name).write_bytes(damaged)
            with pytest.raises(CheckpointError, match=f"step-00000002: {name}: "):
                read(path)
    found = newest(tmp_path)
    assert found.step == 1
    assert found.contents["loss"][0] == 1.0
    assert [skipped for skipped, _ in found.skipped] == [path]
    (path / name).write_bytes(good)
    assert newest(tmp_path).step == 2


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_and_extension_is_noticed(tmp_path, name):
    path = write(tmp_path, 2, small_contents())
    good = (path / name).read_bytes()
    for length in range(len(good)):
        (path / name).write_bytes(good[:length])
        with pytest.raises(CheckpointError, match=f"step-00000002: {name}: "):
            read(path)
    for tail in (b"\0", b"\n", b" ", good):
        (path / name).write_bytes(good + tail)
        with pytest.raises(CheckpointError, match=f"step-00000002: {name}: "):
            read(path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["missing", "link", "pipe", "folder", "device"])
def test_a_file_that_is_no_file_is_refused(tmp_path, name, kind):
    path = write(tmp_path, 2, small_contents())
    moved = tmp_path / "elsewhere"
    (path / name).rename(moved)
    make = {
        "missing": lambda: None,
        "link": lambda: (path / name).symlink_to(moved),
        "pipe": lambda: os.mkfifo(path / name),
        "folder": lambda: (path / name).mkdir(),
        "device": lambda: (path / name).symlink_to("/dev/zero"),
    }
    make[kind]()
    with pytest.raises(CheckpointError, match=name):
        read(path)


def test_an_extra_file_is_refused(tmp_path):
    path = write(tmp_path, 2, small_contents())
    (path / "model.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"'model\.pt': does not belong"):
        read(path)


def test_a_link_to_a_checkpoint_is_refused(tmp_path):
    path = write(tmp_path / "foreign", 2, small_contents())
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / path.name).symlink_to(path)
    with pytest.raises(CheckpointError, match="symbolic link"):
        newest(tmp_path / "own")


def test_the_manifest_of_another_checkpoint_is_refused(tmp_path):
    one, two = write(tmp_path, 1, small_contents(1.0)), write(tmp_path, 2, small_contents(2.0))
    (two / MANIFEST).write_bytes((one / MANIFEST).read_bytes())
    with pytest.raises(CheckpointError, match="SHA-256 is not the one"):
        read(two)
    for name in NAMES:  # and a whole other checkpoint is not taken for the newest
        (two / name).write_bytes((one / name).read_bytes())
    assert newest(tmp_path).path == one
    assert "it is the checkpoint of step 1" in newest(tmp_path).skipped[0][1]


def test_a_newer_format_is_refused_with_a_message(tmp_path):
    path = write(tmp_path, 2, small_contents())
    fields = json.loads((path / MANIFEST).read_bytes())
    (path / MANIFEST).write_text(json.dumps({**fields, "format": 3, "new": "thing"}))
    with pytest.raises(CheckpointError, match="a newer Treadle wrote format 3; this one reads up to 2"):
        read(path)


def test_nothing_valid_is_not_taken_for_nothing_there(tmp_path):
    assert newest(tmp_path / "absent") is None
    assert newest(tmp_path) is None
    (write(tmp_path, 2, small_contents()) / STATE).unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint here can be used:\n.*state.json: missing"):
        newest(tmp_path)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "CON", "a/b", ""])
def test_a_manifest_names_no_other_files(tmp_path, name):
    path = write(tmp_path, 2, small_contents())
    manifest = Manifest.from_bytes((path / MANIFEST).read_bytes())
    files = {name: manifest.files[MODEL], **{other: manifest.files[other] for other in (TRAINING, STATE)}}
    (path / MANIFEST).write_bytes(Manifest(2, None, "1", files).to_bytes())
    with pytest.raises(CheckpointError, match=r"manifest.json: cannot be read.*lists the files"):
        read(path)


def tensor_file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        (1 << 40).to_bytes(8, "little"),
        tensor_file(b"{"),
        tensor_file(b"[1]"),
        tensor_file(b"[" * 100_000),
        tensor_file({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
        tensor_file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)),
        tensor_file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(8)),
        tensor_file({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        tensor_file({"a": {"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}}),
        tensor_file({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}),
        tensor_file({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, bytes(4)),
        tensor_file({"a": {"dtype": "OBJECT", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        tensor_file({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        tensor_file({"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}}, bytes(4)),
        tensor_file({"a": 3}),
    ],
    ids=range(17),
)
def test_a_forged_tensor_file_is_refused_before_memory_is_taken(tmp_path, data):
    path = write(tmp_path, 2, small_contents())
    forge(path, TRAINING, data)
    with pytest.raises(CheckpointError, match=r"training\.safetensors: "):
        read(path)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"[]", b"3", b"{", b"[" * 100_000, b'{"rest": NaN}', b'{"rest": {"$call": "os.system"}}'),
        *(b'{"rest": ' + b"9" * 5000 + b"}", b'{"model": {}}', b'{"rest": {}, "model": {}, "more": 1}'),
        b"\xff",
    ],
    ids=range(11),
)
def test_a_forged_state_is_refused(tmp_path, data):
    path = write(tmp_path, 2, small_contents())
    forge(path, STATE, data)
    with pytest.raises(CheckpointError, match=r"state\.json: "):
        read(path)


def test_forged_bytes_raise_nothing_but_checkpoint_errors(tmp_path):
    path = write(tmp_path, 2, small_contents())
    random = torch.Generator().manual_seed(0)
    good = {name: (path / name).read_bytes() for name in FILES}
    refused = 0
    for attempt in range(600):
        name = FILES[attempt % 3]
        data = bytearray(good[name])
        for _ in range(1 + attempt % 3):
            position = int(torch.randint(len(data), (1,), generator=random))
            data[position] = int(torch.randint(256, (1,), generator=random))
        forge(path, name, bytes(data))
        try:
            read(path)
        except CheckpointError:
            refused += 1
        forge(path, name, good[name])
    assert refused > 300


watched = {"on": False, "events": []}


def watch(event, arguments):
    if (
        watched["on"]
        and event.split(".")[0]
        in (*("import", "exec", "compile", "pickle", "marshal", "subprocess", "socket", "ctypes"),)
    ) or (watched["on"] and event in ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn")):
        watched["events"].append((event, arguments))


def test_loading_runs_nothing(tmp_path, monkeypatch):
    contents = small_contents()
    path = write(tmp_path, 2, contents)
    read(path)

    def refuse(*_, **__):
        raise AssertionError("loading called this")

    for module, name in (
        *((pickle, "loads"), (pickle, "load"), (pickle, "Unpickler"), (marshal, "loads"), (marshal, "load")),
        *((torch, "load"), (importlib, "import_module"), (builtins, "eval"), (builtins, "exec")),
    ):
        monkeypatch.setattr(module, name, refuse)
    sys.addaudithook(watch)
    watched["on"] = True
    try:
        loaded = newest(tmp_path).contents
    finally:
        watched["on"] = False
    assert watched["events"] == []
    assert torch.equal(loaded["model"]["a"], contents["model"]["a"])
