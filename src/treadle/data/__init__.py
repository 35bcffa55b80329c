"""Data: loaders whose batches are a pure function of (seed, epoch, position), and trees of tensors."""

from treadle.data.batch import batch_items, concatenate, map_tree, move, mover, pin, samples_in, split
from treadle.data.datasets import Digits, FashionMNIST
from treadle.data.given import GivenLoader
from treadle.data.idx import read_idx
from treadle.data.loader import Loader
from treadle.data.order import Order, sample_seed
from treadle.data.source import Batches, Source, num_batches
from treadle.data.sources import as_source, loaders

__all__ = [
    "Batches",
    "Digits",
    "FashionMNIST",
    "GivenLoader",
    "Loader",
    "Order",
    "Source",
    "as_source",
    "batch_items",
    "concatenate",
    "loaders",
    "map_tree",
    "move",
    "mover",
    "num_batches",
    "pin",
    "read_idx",
    "sample_seed",
    "samples_in",
    "split",
]
