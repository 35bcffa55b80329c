from __future__ import annotations

import copy
import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import treadle
from treadle.config import ConfigError, Experiment

LINEAR = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 64, "out_features": 10}}
DIGITS = Path(__file__).parents[2] / "examples" / "digits.yaml"


def described() -> dict[str, Any]:
    return {
        "seed": 3,
        "task": {
            "class_path": "treadle.SupervisedTask",
            "init_args": {
                "model": {
                    "class_path": "torch.nn.Sequential",
                    "args": [LINEAR, {"class_path": "torch.nn.ReLU"}],
                },
                "loss": "torch.nn.functional.cross_entropy",
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.9}},
                "lr": 0.1,
                "scheduler": {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 2}},
                "metrics": {"accuracy": {"class_path": "treadle.metrics.Accuracy"}},
            },
        },
        "data": {
            "train": {
                "class_path": "treadle.Loader",
                "init_args": {
                    "dataset": {"class_path": "treadle.data.Digits"},
                    "batch_size": 256,
                    "shuffle": True,
                },
            }
        },
        "trainer": {"max_epochs": 1, "run_dir": None, "progress": False, "checkpoint": None},
    }


def set_at(config: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        config = config[int(key)] if isinstance(config, list) else config[key]
    config[last] = value


def build_all(experiment: Experiment) -> tuple[treadle.Task, dict[str, treadle.Source], treadle.Trainer]:
    data = {name: experiment.build_data(name) for name in experiment.data_names}
    return experiment.build_task(), data, experiment.build_trainer()


def refused(config: Any, *overrides: str, allow: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        build_all(Experiment(config, "run.yaml", overrides, allow))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_configuration_trains_as_it_does_in_python() -> None:
    config = described()
    task, data, trainer = build_all(Experiment(config))
    run = trainer.fit(task, data["train"])

    treadle.seed_all(3)
    model = torch.nn.Sequential(torch.nn.Linear(64, 10), torch.nn.ReLU())
    same = treadle.SupervisedTask(
        model,
        torch.nn.functional.cross_entropy,
        functools.partial(torch.optim.SGD, momentum=0.9),
        lr=0.1,
        scheduler=functools.partial(torch.optim.lr_scheduler.StepLR, step_size=2),
    )
    other = treadle.Trainer(max_epochs=1, seed=3, run_dir=None, progress=False, checkpoint=None)
    expected = other.fit(same, treadle.Loader(treadle.data.Digits(), 256, shuffle=True))
    assert run.weights_sha256 == expected.weights_sha256
    assert "train/accuracy" in run.history
    assert config == described()


def test_the_recorded_configuration_builds_the_same_again() -> None:
    config = described()
    del config["seed"]
    first = Experiment(config, overrides=["task.init_args.lr=0.5"])
    again = Experiment(first.config)
    assert again.config == first.config
    assert 0 <= first.seed < 2**32
    assert first.config["task"]["init_args"]["lr"] == 0.5
    one, two = first.build_task(), again.build_task()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert Experiment(config).seed != Experiment(config).seed


def test_what_a_part_draws_does_not_depend_on_what_was_built_before() -> None:
    experiment = Experiment(described())
    weights = experiment.build_task().state_dict()
    experiment.build_trainer()
    experiment.build_data("train")
    torch.rand(5)
    again = experiment.build_task().state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_the_example_is_what_it_says() -> None:
    experiment = Experiment.read(DIGITS)
    task, data, trainer = build_all(experiment)
    assert experiment.data_names == ["train", "val"]
    assert trainer.max_epochs == 30
    assert trainer.seed == 0
    assert trainer.checkpoint is not None
    assert trainer.checkpoint.monitor == "val/accuracy"
    assert len(data["train"]) == 23
    assert sum(p.numel() for p in task.parameters()) == 50_826


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        # unknown keys and arguments
        (
            "trainr",
            {},
            'run.yaml: trainr: unknown key; allowed are seed, task, data, trainer. Did you mean "trainer"?',
        ),
        ("data.valid", {}, 'data.valid: unknown key; allowed are train, val, test. Did you mean "val"?'),
        ("task.init_arg", {}, "task.init_arg: unknown key; allowed are class_path, init_args, args"),
        (
            "trainer.max_epoch",
            3,
            "trainer.max_epoch: Trainer takes no argument 'max_epoch'; it takes max_epochs,",
        ),
        ("trainer.max_epoch", 3, 'Did you mean "max_epochs"?'),
        ("task.init_args.optimiser", 3, 'Did you mean "optimizer"?'),
        (
            "task.init_args.model.args.0.init_args.in_feature",
            3,
            "task.init_args.model.args.0.init_args.in_feature: ",
        ),
        ("task.init_args.optimizer.init_args.momentumm", 3, 'Did you mean "momentum"?'),
        ("task.init_args.optimizer.init_args.params", [], "takes no argument 'params'"),
        ("data.train.init_args.batchsize", 3, 'Did you mean "batch_size"?'),
        # unknown class paths
        ("task.class_path", "treadle.SupervisedTsk", 'Did you mean "treadle.SupervisedTask"?'),
        ("task.class_path", "treddle.Task", 'Did you mean "treadle"?'),
        ("task.class_path", "SupervisedTask", "'SupervisedTask' is not a dotted name"),
        (
            "task.class_path",
            3,
            "task.class_path: must be a dotted name such as torch.optim.AdamW; it is 3 (int)",
        ),
        ("task.init_args.loss", "torch.nn.functional.crossentropy", "task.init_args.loss.class_path: "),
        ("task.init_args.loss", "os.system", "'os.system' is not allowed"),
        ("task.init_args.loss", {"class_path": "builtins.eval"}, "'builtins.eval' is not allowed"),
        ("task.init_args.metrics.accuracy.class_path", "os.system", "'os.system' is not allowed"),
        # the wrong kind of thing
        (
            "task.class_path",
            "torch.nn.Linear",
            "task.class_path: 'torch.nn.Linear'; it must be class_path of a Task",
        ),
        ("task.init_args.model", 3, "task.init_args.model: 3 (int); it must be class_path of a Module"),
        ("task.init_args.model", {"class_path": "treadle.Every"}, "it must be class_path of a Module"),
        (
            "task.init_args.model",
            "torch.nn.functional.relu",
            "is a function; it must be class_path of a Module",
        ),
        ("data.train.class_path", "treadle.data.Digits", "data.train.class_path: "),
        ("data.train", 3, "data.train: must be a mapping with class_path and init_args; it is 3 (int)"),
        ("task", [1], "task: must be a mapping with class_path and init_args"),
        ("trainer", [1], "trainer: must be a mapping"),
        ("data", 1, "data: must be a mapping"),
        ("task.init_args", [1], "task.init_args: must be a mapping of arguments; it is [1] (list)"),
        ("task.init_args.model.args", {}, "task.init_args.model.args: must be a list of arguments"),
        ("trainer.callbacks", [{"class_path": "torch.nn.ReLU"}], "trainer.callbacks.0.class_path: "),
        ("trainer.callbacks", {"class_path": "treadle.Checkpoints"}, "trainer.callbacks.class_path: "),
        # wrong types and values
        (
            "trainer.max_epochs",
            "three",
            "trainer.max_epochs: 'three' (str); it must be a whole number or null",
        ),
        ("trainer.max_epochs", 3.5, "trainer.max_epochs: 3.5 (float); it must be a whole number"),
        ("trainer.max_epochs", True, "trainer.max_epochs: True (bool); it must be a whole number"),
        ("trainer.max_epochs", -1, "trainer: Trainer: max_epochs is -1; it must be at least 0"),
        ("trainer.progress", "yes", "trainer.progress: 'yes' (str); it must be true or false"),
        ("trainer.precision", "fp8", "fp8"),
        ("trainer.device", "abacus", "device is 'abacus'"),
        ("trainer.eval_every", {"stps": 3}, "trainer.eval_every.stps: Every takes no argument 'stps'"),
        ("trainer.seed", 3, "trainer.seed: the seed is a top-level key"),
        ("data.train.init_args.batch_size", 0, "data.train: Loader: batch_size is 0"),
        ("data.train.init_args.batch_size", "big", "data.train.init_args.batch_size: 'big' (str)"),
        ("data.train.init_args.dataset", {"class_path": "torch.utils.data.TensorDataset"}, "data.train"),
        ("data.train.init_args.dataset", [], "data.train: Loader: "),
        ("data.train.init_args.dataset.init_args", {"split": "tset"}, "Digits: split is 'tset'"),
        ("task.init_args.model.args.0.init_args.in_features", "x", "'x' (str); it must be a whole number"),
        ("task.init_args.lr", -1, "task: SupervisedTask: lr is -1.0"),
        (
            "task.init_args.loss_weights",
            [1],
            "task.init_args.loss_weights: [1] (list); it must be a mapping or null",
        ),
        ("seed", -1, "seed: -1 (int); it must be a whole number from 0 to 4294967295"),
        ("seed", "zero", "seed: 'zero' (str)"),
        ("seed", True, "seed: True (bool)"),
        # what is missing
        ("data", {}, "data: train missing"),
        ("task", None, "task missing"),
        ("task.init_args", None, "task: treadle.SupervisedTask needs model, which is missing"),
        (
            "data.train.init_args",
            {},
            "data.train: treadle.Loader needs dataset, batch_size, which are missing",
        ),
        ("task.init_args.scheduler.init_args", {}, "needs step_size, which is missing"),
        ("task.init_args.model", {"class_path": "torch.nn.Linear", "args": [1, 2]}, "give them in init_args"),
    ],
)
def test_every_mistake_is_one_line_with_its_key_path(path: str, value: Any, said: str) -> None:
    config = copy.deepcopy(described())
    set_at(config, path, value)
    assert said in refused(config)


@pytest.mark.parametrize("config", [None, 3, [], "task"])
def test_a_file_without_the_keys_says_which_there_are(config: Any) -> None:
    assert "seed, task, data, trainer" in refused(config)


def test_nothing_that_is_not_allowed_is_imported(tmp_path, monkeypatch) -> None:
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = described()
    config["trainer"]["callbacks"] = [{"class_path": "evil_module.Thing"}]
    assert "trainer.callbacks.0.class_path: 'evil_module.Thing' is not allowed" in refused(config)
    config = described()
    config["task"]["init_args"]["loss"] = "evil_module.loss"
    assert "is not allowed" in refused(config)
    config = described()
    config["allow"] = ["evil_module"]
    assert "unknown key" in refused(config)
    assert "evil_module" not in sys.modules


def test_the_users_own_module(tmp_path, monkeypatch) -> None:
    (tmp_path / "own_experiment.py").write_text(
        "import torch, treadle\n"
        "from pathlib import Path\n"
        "from enum import Enum\n"
        "class Color(Enum):\n    RED = 1\n"
        "def make_model(width: int) -> torch.nn.Module:\n    return torch.nn.Linear(64, width)\n"
        "def make_number():\n    return 3\n"
        "def loss(output, target, scale: float = 1.0):\n"
        "    return torch.nn.functional.cross_entropy(output, target) * scale\n"
        "class Own(treadle.Callback):\n"
        "    def __init__(self, where: Path, size: tuple[int, float], color: Color, kind: type,\n"
        "                 other: 'Unknown' = 1):\n"
        "        self.given = where, size, color, kind\n"
        "class Broken(treadle.Callback):\n    def __init__(self):\n        raise RuntimeError('no luck')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    allow = ("own_experiment",)
    config = described()
    arguments = config["task"]["init_args"]
    arguments["model"] = {"class_path": "own_experiment.make_model", "init_args": {"width": 10}}
    arguments["loss"] = {"class_path": "own_experiment.loss", "init_args": {"scale": 2}}
    own = {"where": "a/b", "size": [1, 2], "color": "RED", "kind": "torch.nn.ReLU"}
    config["trainer"]["callbacks"] = [{"class_path": "own_experiment.Own", "init_args": own}]
    task, data, trainer = build_all(Experiment(config, allow=allow))
    assert trainer.callbacks[0].given[0] == Path("a/b")
    assert trainer.callbacks[0].given[1] == (1, 2.0)
    assert trainer.callbacks[0].given[2].name == "RED"
    assert trainer.callbacks[0].given[3] is torch.nn.ReLU
    trainer.fit(task, data["train"])

    config["trainer"]["callbacks"] = [{"class_path": "own_experiment.Broken"}]
    assert "trainer.callbacks.0: own_experiment.Broken: RuntimeError: no luck" in refused(config, allow=allow)
    config["trainer"]["callbacks"] = [{"class_path": "own_experiment.Own", "init_args": {**own, "size": [1]}}]
    assert "it must be a list of 2" in refused(config, allow=allow)
    config["trainer"]["callbacks"] = []
    arguments["model"] = {"class_path": "own_experiment.make_number"}
    assert "own_experiment.make_number returned 3 (int)" in refused(config, allow=allow)
    del sys.modules["own_experiment"]


def test_several_losses_and_a_module_as_loss() -> None:
    config = described()
    config["task"]["init_args"]["loss"] = {
        "a": "torch.nn.functional.cross_entropy",
        "b": {"class_path": "torch.nn.CrossEntropyLoss", "init_args": {"label_smoothing": 0.1}},
    }
    config["task"]["init_args"]["loss_weights"] = {"a": 1, "b": 0.5}
    task, data, trainer = build_all(Experiment(config))
    history = trainer.fit(task, data["train"]).history
    assert {"train/a", "train/b", "train/loss"} <= set(history)


def test_changes_from_the_command_line() -> None:
    experiment = Experiment(
        described(),
        overrides=[
            "trainer.max_epochs=2",
            "trainer.clip_norm=1e-1",
            "task.init_args.model.args.0.init_args.bias=false",
            "data.train.init_args.dataset.init_args.split=val",
            "data.test=null",
            "seed=7",
        ],
    )
    assert experiment.seed == 7
    assert experiment.notes == []
    task, data, trainer = build_all(experiment)
    assert trainer.max_epochs == 2
    assert sum(p.numel() for p in task.parameters()) == 640
    assert len(data["train"]) == 2


def test_a_change_of_class_drops_the_old_arguments_and_says_so() -> None:
    change = "task.init_args.optimizer.class_path=torch.optim.AdamW"
    experiment = Experiment(described(), overrides=[change])
    assert experiment.notes == [f"--set {change}: drops momentum of torch.optim.SGD"]
    assert "init_args" not in experiment.config["task"]["init_args"]["optimizer"]
    same = Experiment(described(), overrides=["task.init_args.optimizer.class_path=torch.optim.SGD"])
    assert same.notes == []
    assert same.config["task"]["init_args"]["optimizer"]["init_args"] == {"momentum": 0.9}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("trainer.max_epochs", "--set trainer.max_epochs: give KEY=VALUE"),
        ("=3", "give KEY=VALUE"),
        ("a..b=3", "give KEY=VALUE"),
        ("trainer.max_epochs=three", "--set trainer.max_epochs=three: trainer.max_epochs: 'three' (str)"),
        ("trainer.max_epochs=[1", "not valid YAML"),
        ("trainer.max_epoch=3", 'Did you mean "max_epochs"?'),
        ("trainr.max_epochs=3", 'Did you mean "trainer"?'),
        ("task.init_args.modle.class_path=x.y", "there is no task.init_args.modle; task.init_args has model"),
        ("task.lr=0.1", 'Did you mean "task.init_args.lr"?'),
        ("task.init_arg.lr=0.1", 'Did you mean "init_args"?'),
        ("task.init_args.model.args.7.class_path=x.y", "is a list with numbers 0 to 1"),
        ("task.init_args.model.args.x=3", "is a list with numbers 0 to 1"),
        ("seed.x=3", "seed is 3 (int); nothing is inside it"),
        ("task.init_args.lr.x.y=3", "nothing is inside it"),
        (
            "task.class_path=os.system",
            "--set task.class_path=os.system: task.class_path: 'os.system' is not allowed",
        ),
        ("data.train.class_path=treadle.Source", "treadle.Source needs batches"),
    ],
)
def test_a_change_that_leads_nowhere_says_so(change: str, said: str) -> None:
    assert said in refused(described(), change)


def test_only_the_data_there_are_can_be_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"run\.yaml: data: there is no test; there is train"):
        Experiment(described(), "run.yaml").build_data("test")
