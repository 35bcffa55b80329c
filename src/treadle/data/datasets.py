"""Small real datasets, whole in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from treadle.data.idx import read_idx

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_VARIABLE = "TREADLE_FASHION_MNIST"


class Digits(TensorDataset):
    """scikit-learn's handwritten digits: images float32 [samples, 64] in 0 .. 1, labels int64 [samples].

    The 1797 images are permuted once and for all; the first 1437 are for training, the last 360 for
    validation.

    Args:
        split: "train", "val" or "all".

    Raises:
        ValueError: there is no such split.
        ModuleNotFoundError: scikit-learn is not installed.
    """

    def __init__(self, split: str = "train") -> None:
        parts = {"train": slice(None, 1437), "val": slice(1437, None), "all": slice(None)}
        if split not in parts:
            raise ValueError(f"Digits: split is {split!r}; allowed are {', '.join(map(repr, parts))}")
        try:
            from sklearn.datasets import load_digits
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "Digits needs scikit-learn: pip install 'treadle[examples]'", name=error.name
            ) from error
        images, labels = load_digits(return_X_y=True)
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[parts[split]]
        pixels = torch.from_numpy(images / 16).float()
        super().__init__(pixels[chosen], torch.from_numpy(labels).long()[chosen])


class FashionMNIST(TensorDataset):
    """Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): images uint8 [samples, 28, 28], labels int64 [samples].

    Read from idx files in `folder`, else in the folder that the environment variable
    TREADLE_FASHION_MNIST names, else where Debian's dataset-fashion-mnist puts them, else through Hugging
    Face datasets where that is installed.

    Args:
        folder: where the idx files lie, gzipped or plain.
        split: "train" (60000 samples) or "test" (10000).

    Raises:
        ValueError: there is no such split, or a file is damaged.
        FileNotFoundError: the dataset is in none of these places.
    """

    def __init__(self, folder: str | Path | None = None, split: str = "train") -> None:
        prefixes = {"train": "train", "test": "t10k"}
        if split not in prefixes:
            raise ValueError(f"FashionMNIST: split is {split!r}; allowed are 'train' and 'test'")
        named = folder or os.environ.get(FASHION_MNIST_VARIABLE)
        place = Path(named) if named else FASHION_MNIST_FOLDER
        if named or place.is_dir():
            images = read_idx(_find(place, f"{prefixes[split]}-images-idx3-ubyte"))
            labels = read_idx(_find(place, f"{prefixes[split]}-labels-idx1-ubyte"))
        else:
            images, labels = _from_huggingface(split)
        if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
            shapes = f"{list(images.shape)} and {list(labels.shape)}"
            raise ValueError(f"FashionMNIST: images and labels of shapes {shapes} do not belong together")
        super().__init__(images, labels.long())


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"FashionMNIST: there is neither {name}.gz nor {name} in {folder}")


def _from_huggingface(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise FileNotFoundError(
            f"FashionMNIST: there is no folder {FASHION_MNIST_FOLDER}, and Hugging Face datasets is not "
            "installed. Install Debian's dataset-fashion-mnist, or `pip install 'treadle[huggingface]'`, or "
            "name a folder with the idx files by `folder` or the environment variable "
            f"{FASHION_MNIST_VARIABLE}"
        ) from error
    table: Any = datasets.load_dataset("zalando-datasets/fashion_mnist", split=split)
    images = np.stack([np.asarray(image, dtype=np.uint8) for image in table["image"]])
    return torch.from_numpy(images), torch.tensor(table["label"])
