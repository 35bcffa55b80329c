"""Classify short texts with a small Hugging Face model, made here: nothing is downloaded.

python examples/text_classification.py [--epochs 6]

The texts are reviews put together from the words below; "not" turns a judgement around, so that counting
words is not enough. Needs transformers (pip install "treadle[huggingface]") and torchmetrics
(pip install "treadle[metrics]").
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import nn

import treadle
import treadle.scores
from treadle.interop.huggingface import HuggingFaceTask, Padding
from treadle.loading import load_model

THINGS = ("film", "book", "meal", "hotel", "concert", "journey", "song", "garden")
GOOD = ("good", "great", "lovely", "fine", "wonderful", "charming")
BAD = ("bad", "dull", "awful", "poor", "dreadful", "boring")
OPENINGS = ("the {} was", "i found the {}", "what can i say , the {} is", "we all thought the {}")
DEGREES = ("", "very", "rather", "not", "not very", "really not")
ENDINGS = ("", "this year", "if you ask me")
NAMES = ("bad", "good")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

Text = tuple[str, int]


def reviews(seed: int = 0) -> list[Text]:
    """Every review there is, shuffled: 6,912 texts and whether they praise."""
    texts = []
    for opening, thing, degree, word, ending in product(OPENINGS, THINGS, DEGREES, GOOD + BAD, ENDINGS):
        words = f"{opening.format(thing)} {degree} {word} {ending}".split()
        texts.append((" ".join(words), int((word in GOOD) != ("not" in degree))))
    random.Random(seed).shuffle(texts)
    return texts


class Tokenizer:
    """Words by number; those that no text of the training set has are one and the same."""

    def __init__(self, texts: Sequence[Text]) -> None:
        words = sorted({word for text, _ in texts for word in text.split()})
        self.numbers = {word: number for number, word in enumerate([*SPECIAL, *words])}

    def __len__(self) -> int:
        return len(self.numbers)

    def __call__(self, text: str) -> list[int]:
        unknown = self.numbers["[UNK]"]
        words = [self.numbers.get(word, unknown) for word in text.split()]
        return [self.numbers["[CLS]"], *words, self.numbers["[SEP]"]]


def samples(texts: Sequence[Text], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    return [{"input_ids": tokenizer(text), "labels": label} for text, label in texts]


def model_of(words: int, seed: int = 0) -> nn.Module:
    """A BERT of about ten thousand parameters, drawn at random."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "vocab_size": words,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 24,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.2,
        "num_labels": len(NAMES),
    }
    model: nn.Module = BertForSequenceClassification(BertConfig(**sizes))
    return model


def train(epochs: int = 6, seed: int = 0, **trainer: Any) -> tuple[treadle.Run, treadle.scores.Scores]:
    """Train on a sixth of the texts, and measure the best checkpoint on a thousand others."""
    texts = reviews()
    parts = texts[:1200], texts[1200:1600], texts[1600:2600]
    tokenizer = Tokenizer(parts[0])
    train_data, val_data, test_data = (
        treadle.Loader(samples(part, tokenizer), batch_size=32, shuffle=True, collate=Padding())
        for part in parts
    )
    task = HuggingFaceTask(
        model_of(len(tokenizer), seed), lr=3e-3, metrics={"accuracy": treadle.metrics.Accuracy()}
    )
    runner = treadle.Trainer(max_epochs=epochs, seed=seed, clip_norm=1.0, **trainer)
    run = runner.fit(task, train_data, val_data)
    if run.checkpoints:
        load_model(run, task, "best")
    scores = treadle.scores.classification(runner.results(task, test_data), names=NAMES)
    for text in ("the film was not dull", "what can i say , the meal is rather awful"):
        sample = {name: value[0] for name, value in Padding()([{"input_ids": tokenizer(text)}]).items()}
        print(f"{text}: {NAMES[int(runner.predict_sample(task, sample).argmax())]}")
    return run, scores


def main(arguments: Sequence[str] | None = None) -> treadle.scores.Scores:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", default="runs/text")
    given = parser.parse_args(arguments)
    _, scores = train(given.epochs, given.seed, run_dir=given.run_dir)
    print(scores.table())
    return scores


if __name__ == "__main__":
    main()
