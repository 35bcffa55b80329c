"""Hugging Face models: their loss, their logits, their tokens; with a look-alike, and with the real ones."""

# ruff: noqa: N802 - the capital letter is the row of the list of results that the test shows

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import treadle
import treadle.scores
from treadle.interop.huggingface import CausalLanguageTask, HuggingFaceTask, Padding

VOCABULARY, CLASSES = 11, 3


@dataclass
class Output(OrderedDict[str, Any]):
    """What a Hugging Face model returns: a mapping that is a dataclass and leaves out what is None."""

    loss: Tensor | None = None
    logits: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("loss", "logits"):
            if getattr(self, name) is not None:
                super().__setitem__(name, getattr(self, name))

    def update(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("as the original does")


class Texts(nn.Module):
    """Classes of texts, from the mean of their tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.head = nn.Linear(8, CLASSES)

    def features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.unsqueeze(-1)
        return (self.embedding(input_ids) * mask).sum(1) / mask.sum(1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Output:
        logits = self.head(self.features(input_ids, attention_mask))
        return Output(None if labels is None else cross_entropy(logits, labels), logits)


class Tokens(Texts):
    """Classes of tokens."""

    def features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.embedding(input_ids)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Output:
        logits = self.head(self.features(input_ids, attention_mask))
        loss = None if labels is None else cross_entropy(logits.flatten(0, 1), labels.flatten())
        return Output(loss, logits)


class Language(Texts):
    """The next token, from this one; shifts the labels as Hugging Face models do."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, VOCABULARY)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Output:
        logits = self.head(self.embedding(input_ids))
        loss = None
        if labels is not None:
            loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return Output(loss, logits)


def texts(count: int = 24) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    rows = []
    for number in range(count):
        length = int(torch.randint(2, 8, (), generator=generator))
        ids = torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()
        rows.append({"input_ids": ids, "label": number % CLASSES})
    return rows


def token_rows(shift: int = 0) -> list[dict[str, Any]]:
    """Texts with a label for most tokens; some texts have many, some one or none."""
    rows = []
    for number, row in enumerate(texts()):
        labels = [token % CLASSES if shift == 0 else token for token in row["input_ids"]]
        kept = shift + (number % 4)
        labels = [label if place < kept else -100 for place, label in enumerate(labels)]
        rows.append({"input_ids": row["input_ids"], "labels": labels})
    return rows


def make_trainer(**options: Any) -> treadle.Trainer:
    return treadle.Trainer(**{"max_epochs": 3, "seed": 0, "run_dir": None, "progress": False} | options)


def weights(task: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in task.parameters()])


def test_D5_batches_by_keyword_and_a_loss_of_the_models_own() -> None:
    model = Texts()
    by_hand = copy.deepcopy(model)
    task = HuggingFaceTask(
        model, optimizer=torch.optim.SGD, lr=0.5, metrics={"accuracy": treadle.metrics.Accuracy()}
    )
    loader = treadle.Loader(texts(), 5, collate=Padding())
    run = make_trainer().fit(task, loader, loader)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.5)
    for _ in range(3):
        for batch in loader:
            by_hand(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.allclose(weights(model), weights(by_hand), atol=1e-6)
    batch = Padding()(texts())
    output = by_hand(**batch)
    assert run.history["val/loss"][-1] == pytest.approx(output.loss.item(), rel=1e-5)
    right = (output.logits.argmax(1) == batch["labels"]).double().mean().item()
    assert run.history["val/accuracy"][-1] == pytest.approx(right)


def test_predictions_are_logits_with_labels_and_without() -> None:
    model = Texts()
    task = HuggingFaceTask(model)
    bare = [{"input_ids": row["input_ids"]} for row in texts()]
    expected = model(**Padding()(bare)).logits
    for rows in (texts(), bare):
        found = make_trainer().predict(task, treadle.Loader(rows, 5, collate=Padding()))
        assert torch.allclose(found, expected, atol=1e-6)
    results = make_trainer().results(task, treadle.Loader(texts(), 5, collate=Padding()))
    assert torch.allclose(results.outputs, expected, atol=1e-6)
    assert torch.equal(results.predictions, expected.argmax(1))
    assert treadle.scores.classification(results).samples == 24
    one = {name: value[0] for name, value in Padding()(bare[:1]).items()}
    assert torch.allclose(make_trainer().predict_sample(task, one), expected[0], atol=1e-6)


@pytest.mark.parametrize("kind", ["tokens", "language"])
def test_every_labelled_token_weighs_the_same_however_batches_are_cut(kind: str) -> None:
    """Accumulated, cut into micro-batches or whole: one step over 24 texts is one step over their tokens."""
    shift = 0 if kind == "tokens" else 1
    rows = token_rows(shift)

    def stepped(batch_size: int, **options: Any) -> Tensor:
        task: HuggingFaceTask = (
            HuggingFaceTask(Tokens(), optimizer=torch.optim.SGD, lr=0.5)
            if kind == "tokens"
            else CausalLanguageTask(Language(), optimizer=torch.optim.SGD, lr=0.5)
        )
        loader = treadle.Loader(rows, batch_size, collate=Padding())
        make_trainer(max_epochs=None, max_steps=3, **options).fit(task, loader)
        return weights(task)

    whole = stepped(24)
    assert torch.allclose(stepped(24, microbatch_size=7), whole, atol=1e-6)
    assert torch.allclose(stepped(1, accumulate=24), whole, atol=1e-6)  # some texts have no label at all
    assert torch.allclose(stepped(5, accumulate=5), whole, atol=1e-6)


def test_losses_and_metrics_of_tokens_are_means_over_tokens() -> None:
    rows = token_rows()
    task = HuggingFaceTask(Tokens(), metrics={"accuracy": treadle.metrics.Accuracy(ignore_index=-100)})
    found = make_trainer().evaluate(task, treadle.Loader(rows, 5, collate=Padding()))
    batch = Padding()(rows)
    output = task.model(**batch)
    counted = batch["labels"] != -100
    right = (output.logits.argmax(-1) == batch["labels"])[counted].double().mean().item()
    assert found == pytest.approx({"test/loss": output.loss.item(), "test/accuracy": right}, rel=1e-5)
    fixed = treadle.Loader(rows, 5, collate=Padding(length=8))  # one shape, so that outputs can be joined
    results = make_trainer().results(task, fixed)
    assert results.outputs.shape == (24, CLASSES, 8)
    scores = treadle.scores.classification(results)
    assert scores.samples == int(counted.sum())
    assert scores.values["accuracy"] == pytest.approx(right)


def test_a_language_model_is_measured_against_the_next_token() -> None:
    rows = token_rows(1)
    task = CausalLanguageTask(Language(), metrics={"accuracy": treadle.metrics.Accuracy(ignore_index=-100)})
    found = make_trainer().evaluate(task, treadle.Loader(rows, 7, collate=Padding()))
    batch = Padding()(rows)
    output = task.model(**batch)
    ahead = batch["labels"][:, 1:]
    right = (output.logits[:, :-1].argmax(-1) == ahead)[ahead != -100].double().mean().item()
    assert found == pytest.approx({"test/loss": output.loss.item(), "test/accuracy": right}, rel=1e-5)
    assert task.num_items(batch) == int((ahead != -100).sum())


def test_a_loss_of_ones_own_and_labels_under_another_name() -> None:
    def smooth(logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, label_smoothing=0.1)

    rows = [{"input_ids": row["input_ids"], "kind": row["label"]} for row in texts()]
    task = HuggingFaceTask(Texts(), smooth, labels="kind")
    batch = Padding()(rows)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    expected = smooth(task.model(**inputs).logits, batch["kind"]).item()
    found = make_trainer().evaluate(task, treadle.Loader(rows, 6, collate=Padding()))
    assert found["test/loss"] == pytest.approx(expected, rel=1e-5)


def test_what_is_missing_is_said() -> None:
    bare = [{"input_ids": row["input_ids"]} for row in texts()]
    with pytest.raises(ValueError, match="Texts returned no loss for a batch of input_ids, attention_mask"):
        make_trainer().evaluate(HuggingFaceTask(Texts()), treadle.Loader(bare, 6, collate=Padding()))
    with pytest.raises(TypeError, match="a batch is tuple; it must be a mapping"):
        make_trainer().evaluate(HuggingFaceTask(Texts()), (torch.zeros(3, 2), torch.zeros(3)))


def test_D5_padding() -> None:
    rows = [
        {"input_ids": [5, 6, 7], "label": 1, "words": "a b c", "box": torch.ones(3, 2)},
        {"input_ids": [8], "label": 0, "words": "d", "box": torch.ones(1, 2)},
    ]
    batch = Padding(token=9)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [1, 0]
    assert batch["words"] == ["a b c", "d"]
    assert batch["box"].shape == (2, 3, 2)
    assert batch["box"][1, 1:].sum() == 0
    left = Padding(side="left", multiple_of=4, values={"box": 2})(rows)
    assert left["input_ids"].tolist() == [[0, 5, 6, 7], [0, 0, 0, 8]]
    assert left["box"][1].tolist() == [[2, 2], [2, 2], [2, 2], [1, 1]]
    labelled = Padding()([{"labels": [1, 2]}, {"labels": [3]}])
    assert labelled["labels"].tolist() == [[1, 2], [3, -100]]
    with pytest.raises(ValueError, match="'input_ids' has 3 positions; length is 2"):
        Padding(length=2)(rows)
    with pytest.raises(ValueError, match="side is 'up'"):
        Padding(side="up")


def bert(labels: int = CLASSES) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="Hugging Face transformers is not installed")
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        num_labels=labels,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    model: nn.Module = transformers.BertForSequenceClassification(config)
    return model


def test_a_real_text_classifier() -> None:
    task = HuggingFaceTask(bert(), lr=1e-2, metrics={"accuracy": treadle.metrics.Accuracy()})
    loader = treadle.Loader(texts(), 6, collate=Padding())
    run = make_trainer(max_epochs=8).fit(task, loader, loader)
    assert run.history["val/loss"][-1] < run.history["val/loss"][0]
    results = make_trainer().results(task, loader)
    expected = task.model(**Padding()(texts())).logits
    assert torch.allclose(results.outputs, expected, atol=1e-5)


def test_a_real_language_model_weighs_tokens() -> None:
    transformers = pytest.importorskip("transformers", reason="Hugging Face transformers is not installed")
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=16,
        n_embd=16,
        n_layer=1,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config)

    def stepped(batch_size: int, accumulate: int) -> Tensor:
        task = CausalLanguageTask(copy.deepcopy(model), optimizer=torch.optim.SGD, lr=0.5)
        loader = treadle.Loader(token_rows(1), batch_size, collate=Padding())
        make_trainer(max_epochs=None, max_steps=2, accumulate=accumulate).fit(task, loader)
        return weights(task)

    assert torch.allclose(stepped(2, 12), stepped(24, 1), atol=1e-5)
    task = CausalLanguageTask(model)
    batch = Padding()(token_rows(1))
    found = make_trainer().evaluate(task, treadle.Loader(token_rows(1), 5, collate=Padding()))
    assert found["test/loss"] == pytest.approx(model(**batch).loss.item(), rel=1e-5)


def test_D5_a_real_hugging_face_dataset() -> None:
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    rows = datasets.Dataset.from_list(texts())
    task = HuggingFaceTask(Texts())
    found = make_trainer().evaluate(task, treadle.Loader(rows, 5, collate=Padding()))
    plain = make_trainer().evaluate(task, treadle.Loader(texts(), 5, collate=Padding()))
    assert found == pytest.approx(plain)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_encoder_decoder_predicts_given_the_labels_before() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    model = transformers.T5ForConditionalGeneration(config)
    tokens = torch.arange(60).reshape(10, 6) % VOCABULARY
    data = [{"input_ids": row, "labels": row.flip(0)} for row in tokens]
    trainer = treadle.Trainer(max_epochs=1, seed=0, run_dir=None, progress=False)
    for loss in (None, cross_entropy):
        task = HuggingFaceTask(model, loss, lr=1e-3)
        trainer.fit(task, treadle.Loader(data, 4))
        found = trainer.predict(task, treadle.Loader(data, 4))
        with torch.no_grad():
            expected = model.eval()(input_ids=tokens, labels=tokens.flip(1)).logits
        assert torch.allclose(found, expected, atol=1e-5)
