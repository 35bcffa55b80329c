"""What five trainers before Treadle do, and the tests that show it here: writes docs/checklist.md.

python docs/checklist.py
"""

# ruff: noqa: E501 - the sentences of the page

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "checklist.md"
TEST = re.compile(r"(?P<file>\S+)::(?P<name>test_(?P<row>[A-F]\d?)(?P<beat>_beat)?_(?P<words>\w+))")


@dataclass(frozen=True)
class Section:
    """One of the five, or the comparison of all.

    Attributes:
        title: what it is.
        rows: what each row asks, by its number.
        beats: what the original gets wrong, and the words in the names of the tests that we do not.
        open: what is not done yet or on purpose otherwise, by row.
    """

    title: str
    rows: dict[str, str]
    beats: dict[str, str] = field(default_factory=dict)
    open: dict[str, str] = field(default_factory=dict)


SECTIONS = {
    "A": Section(
        "tinybig",
        {
            "A1": "loss, optimizer and scheduler as objects, as configurations or left out; built when training "
            "starts; the caller's configuration unchanged",
            "A2": "one call to train, with device, metric, evaluation and display to choose",
            "A3": "what happens in a batch and in an epoch, in which order",
            "A4": "progress with elapsed time, epoch, loss, metric and learning rate",
            "A5": "a record with preparation time, times of epochs without their evaluation, values and times of "
            "steps; readable while training",
            "A6": "a full and a short test result",
            "A7": "accuracy, F1, mean squared error; one file for a run; seeds in one call; outputs saved",
        },
        {
            "the test loss is a mean of batch means": "test_loss_is_item_weighted",
            "test data are required where nothing tests": "no_test_data_are_needed",
            "ReduceLROnPlateau fails": "reduce_on_plateau",
            "display every 0 epochs divides by zero": "every_zero",
            "a regression output (N, 1) is taken for class 0": "regression_column",
            "an optimizer of another model trains nothing, silently": "another_model_is_refused",
            "the record grows in memory": "does_not_grow_in_memory",
            "the device is read on every batch": "nothing_is_read_from_the_device",
        },
    ),
    "B": Section(
        "PytorchTask",
        {
            "B1": "what the user has to give, with an error that names what is missing",
            "B2": "training with named losses, testing with named metrics, prediction live and from path to path; "
            "validation along the way",
            "B3": "every level overridable with super(); a function every n epochs",
            "B4": "models saved under names, loaded by name or the last",
            "B5": "the run's folder; runs listed, found by id, used from other programs; a command line",
        },
        {
            "evaluation in training mode and with gradients": "eval_mode_and_without_gradients",
            "files half written when killed": "writes_are_atomic",
            "the whole file written anew each epoch": "not_the_whole_file",
            "NaN written as invalid JSON": "valid_json",
            "only weights are saved": "more_than_weights",
        },
        {
            "B1": "on purpose otherwise: validation data do not default to the test data; whoever wants that "
            "gives the test data as `val`",
        },
    ),
    "C": Section(
        "aitoolbox",
        {
            "C1": "loaders, losses and optimizers, one, several or none; functions on predictions; when to "
            "evaluate; nothing on disk too early; callbacks listed; mixed precision",
            "C2": "a fit by epochs or by iterations; callbacks for one fit; the end of an epoch that was cut short",
            "C3": "accumulation: which batches update, who may ask, how many updates are ahead",
            "C4": "which losses are measured when; callbacks insert results",
            "C5": "losses and predictions of any data with metadata; a cache that can be forced",
            "C6": "several losses and optimizers, together or mapped to each other, and saved",
            "C7": "devices and processes",
            "C8": "callbacks: stopping, gradients, schedules, checkpoints, reports, notification, messages",
            "C9": "result packages that compare and add up; a predictor over a saved model; checkpoints elsewhere",
        },
        {
            "names of several losses are swapped": "several_losses_keep_their_names",
            "several losses that share parameters fail": "losses_that_share_parameters",
            "the last window of an accumulation counts too little": "last_window",
            "a stop by iterations drops the open window": "no_open_window",
            "steps are counted wrongly": "steps_are_counted_right",
            "a second fit of three epochs trains one": "second_fit",
            "the cache is stale": "never_stale",
            "evaluating the training data changes the training": "evaluating_the_training_data",
            "averages are means of batch means": "means_are_over_items",
            "iterable data fail": "streams_train",
            "evaluation every 0 fails late": "every_zero_is_said",
            "unknown arguments are ignored": "unknown_arguments",
            "9 validation samples on 2 ranks become 10": "nine_samples",
            "resuming forgets history, generators, early stopping": "resuming_forgets_nothing",
            "clipping by value and by norm fails in mixed precision": "by_value_and_norm_together",
        },
        {
            "C7": "more of what many processes do is shown in tests/distributed, which has no rows here; several "
            "machines are not",
        },
    ),
    "D": Section(
        "nntrain",
        {
            "D1": "a learner whose parts are methods; callbacks and a learning rate for one fit",
            "D2": "events in order; subscribers sorted, equal ones as given",
            "D3": "any subscriber cancels the batch, the epoch or the fit",
            "D4": "metrics by mode, devices, a learning-rate finder, momentum by overriding zero_grad, bars and a "
            "table; the numbers on Fashion-MNIST",
            "D5": "loaders from a dataset dictionary, collation, seeds, activation statistics, per-step schedules, "
            "augmentation on the device, parameters and MACs",
        },
        {
            "cancelling skips the cleaning up and leaves gradients": "cancelling_cleans_up",
            "the rate finder leaves the weights changed": "finder_leaves_no_trace",
            "the rate finder never stops on NaN": "finder_stops_at_not_a_number",
            "the rate finder is limited to one epoch": "finder_spans_epochs",
            "frozen parameters fail": "frozen_parameters",
            "batches that are tuples fail": "batches_of_any_form",
            "the caller's list is changed": "callers_list",
            "the optimizer loses its state between fits": "keeps_its_state_between_fits",
        },
        {
            "D4": "the rate finder's 0.2 on Fashion-MNIST lies between our suggestion (0.04 to 0.05, a tenth of the "
            "rate with the lowest loss) and that rate (0.39 to 0.48)",
        },
    ),
    "E": Section(
        "a lecture on training with Lightning",
        {
            "E1": "a data set of a curve, numbered and as a stream",
            "E2": "shuffled batches of 32 with a short last one; a model of 49 parameters",
            "E3": "a module with its loss and optimizer, values logged to the display, a table of parameters, a "
            "line that says why training stopped; the loss after ten epochs, in the spread of thirty seeds",
            "E4": "a log as CSV, with a version counted up, read back and plotted",
        },
        {
            "the stream drifts, and has a point too many": "does_not_drift",
            "two workers give every point of the stream twice": "two_workers",
        },
    ),
    "F": Section(
        "all of them side by side, and a loop by hand",
        {
            "F": "handwritten digits from the same weights in the same order: 0.423861 and 0.9278; with momentum "
            "by overriding zero_grad 0.137268 and 0.9583; validation, metrics, record and checkpoints on",
        },
    ),
}


def collected() -> list[str]:
    """The names of the tests of the checklist, as pytest collects them: "file::test"."""
    command = [sys.executable, "-m", "pytest", "tests/checklist", "--collect-only", "-q"]
    command += ["--override-ini=addopts=--import-mode=importlib", "-p", "no:cacheprovider"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return list(dict.fromkeys(line.partition("[")[0].strip() for line in said.splitlines() if "::" in line))


def page(tests: list[str]) -> str:
    """The page.

    Raises:
        ValueError: a row or a defect has no test, or a test names a row that there is not.
    """
    found = [match for match in map(TEST.fullmatch, tests) if match is not None]
    lines = [
        "# The checklist",
        "",
        "Five trainers taught Treadle what people need. This page lists all that they do, and which tests show "
        "that Treadle does it, under names of its own ([where to find what](coming-from.md)). A test's name "
        "begins with its row: `make test ARGS='-k C3'` runs row C3 and `-k C_beat` the defects of C. What is "
        "open is said in words.",
        "",
        "Written by `python docs/checklist.py` from the tests that pytest collects; a test fails when it is stale.",
        "",
        f"{sum(len(section.rows) for section in SECTIONS.values())} rows, {len(found)} tests.",
    ]
    used = set()
    for letter, section in SECTIONS.items():
        own = [match for match in found if match["row"].startswith(letter)]
        lines += [
            "",
            f"## {letter}. {section.title}",
            "",
            "| row | what it asks | shown by | open |",
            "|---|---|---|---|",
        ]
        for row, asks in section.rows.items():
            shown = [match for match in own if match["row"] == row and not match["beat"]]
            if not shown:
                raise ValueError(f"no test shows row {row}")
            used |= {match[0] for match in shown}
            lines.append(f"| {row} | {asks} | {_names(shown)} | {section.open.get(row, '')} |")
        if section.beats:
            lines += [
                "",
                f"What {section.title} gets wrong, and Treadle does not:",
                "",
                "| defect | shown by |",
                "|---|---|",
            ]
        for defect, words in section.beats.items():
            shown = [match for match in own if words in match["name"] and match[0] not in used]
            if not shown:
                raise ValueError(f"{letter}: no test shows: {defect}")
            used |= {match[0] for match in shown}
            lines.append(f"| {defect} | {_names(shown)} |")
    strays = [test for test in tests if test not in used and TEST.fullmatch(test)]
    if strays:
        raise ValueError(f"tests of no row or defect: {strays}")
    return "\n".join(lines) + "\n"


def _names(matches: list[re.Match[str]]) -> str:
    return ", ".join(match["words"].replace("_", " ") for match in matches)


if __name__ == "__main__":
    PAGE.write_text(page(collected()))
    print(PAGE)
