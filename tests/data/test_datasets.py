"""The datasets that come along, and the files they are read from."""

import builtins
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from treadle.data import Digits, FashionMNIST, Loader, datasets, read_idx


def idx(kind, shape, content):
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape) + content


def fashion(folder, images=3, labels=3, zipped=False):
    folder.mkdir(exist_ok=True)
    files = {
        "t10k-images-idx3-ubyte": idx(8, (images, 28, 28), bytes(range(images)) * 784),
        "t10k-labels-idx1-ubyte": idx(8, (labels,), bytes(range(labels))),
    }
    for name, content in files.items():
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(
            gzip.compress(content) if zipped else content
        )
    return folder


def hide(monkeypatch, name):
    real = builtins.__import__

    def importing(module, *arguments, **options):
        if module.split(".")[0] == name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(module, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", importing)


def test_digits():
    train, val, whole = Digits("train"), Digits("val"), Digits("all")
    assert (len(train), len(val), len(whole)) == (1437, 360, 1797)
    images, labels = whole.tensors
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert images.shape == (1797, 64)
    assert (images.min(), images.max()) == (0, 1)
    assert torch.equal(torch.cat([train.tensors[0], val.tensors[0]]), images)

    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    assert torch.equal(images, torch.tensor(pixels / 16, dtype=torch.float32)[order])
    assert torch.equal(labels, torch.tensor(digits)[order])
    assert next(iter(Loader(train, 32)))[0].shape == (32, 64)


def test_digits_errors(monkeypatch):
    with pytest.raises(ValueError, match="split is 'test'; allowed are 'train', 'val', 'all'"):
        Digits("test")
    hide(monkeypatch, "sklearn")
    with pytest.raises(ModuleNotFoundError, match=r"treadle\[examples\]"):
        Digits()


@pytest.mark.skipif(
    not datasets.FASHION_MNIST_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed"
)
def test_the_installed_fashion_mnist(monkeypatch):
    monkeypatch.delenv(datasets.FASHION_MNIST_VARIABLE, raising=False)
    images, labels = FashionMNIST(split="test").tensors
    assert (images.shape, images.dtype) == ((10000, 28, 28), torch.uint8)
    assert (labels.dtype, labels.bincount().tolist()) == (torch.int64, [1000] * 10)
    assert round(images.float().mean().item(), 2) == 73.15


@pytest.mark.parametrize("zipped", [False, True])
def test_fashion_mnist_from_a_folder(tmp_path, monkeypatch, zipped):
    folder = fashion(tmp_path / "files", zipped=zipped)
    for dataset in (FashionMNIST(folder, "test"), FashionMNIST(str(folder), split="test")):
        assert dataset.tensors[1].tolist() == [0, 1, 2]
    monkeypatch.setenv(datasets.FASHION_MNIST_VARIABLE, str(folder))
    assert len(FashionMNIST(split="test")) == 3
    with pytest.raises(FileNotFoundError, match=r"neither train-images-idx3-ubyte\.gz nor"):
        FashionMNIST()


def test_fashion_mnist_errors(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="split is 'val'; allowed are 'train' and 'test'"):
        FashionMNIST(split="val")
    with pytest.raises(ValueError, match="do not belong together"):
        FashionMNIST(fashion(tmp_path / "odd", labels=2), "test")
    monkeypatch.delenv(datasets.FASHION_MNIST_VARIABLE, raising=False)
    monkeypatch.setattr(datasets, "FASHION_MNIST_FOLDER", tmp_path / "nothing")
    hide(monkeypatch, "datasets")
    with pytest.raises(FileNotFoundError, match=r"(?s)treadle\[huggingface\].*TREADLE_FASHION_MNIST"):
        FashionMNIST()


@pytest.mark.parametrize(
    ("kind", "form"),
    [(0x08, ">u1"), (0x09, ">i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")],
)
def test_every_type_of_idx_file(tmp_path, kind, form):
    values = np.arange(6).reshape(2, 3).astype(form)
    path = Path(tmp_path / "values")
    path.write_bytes(idx(kind, (2, 3), values.tobytes()))
    result = read_idx(path)
    assert result.tolist() == values.tolist()
    assert result.dtype == torch.from_numpy(values.astype(form[1:])).dtype


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "not an idx file: it begins with nothing"),
        (b"\x89PNG....", "not an idx file: it begins with 89504e47"),
        (idx(8, (2, 2), b"")[:7], "the header is cut short"),
        (idx(8, (2, 2), b"123"), r"cut short: 3 of 4 bytes for shape \[2, 2\]"),
        (idx(8, (2, 2), b"12345"), "longer than the 4 bytes"),
        (idx(8, (2**31, 2**31), b""), "promises 4611686018427387904 bytes; allowed are at most"),
        (gzip.compress(idx(8, (4,), b"1234"))[:-10], "damaged"),
        (gzip.compress(idx(8, (4,), b"1234"))[:-8] + b"12345678", "damaged"),
        (gzip.compress(idx(8, (4,), b"1" * 10**6)), "longer than the 4 bytes"),
    ],
)
def test_damaged_idx_files_are_clear_errors(tmp_path, content, text):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: .*{text}"):
        read_idx(path)
