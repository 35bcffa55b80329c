"""`treadle export RUN`: a run's weights as one file."""

from __future__ import annotations

import argparse

from treadle.cli.arguments import DONE, UsageError, add_run

NAME = "export"
HELP = "write a run's weights into one safetensors file"
DESCRIPTION = """\
Write the weights of a checkpoint into one safetensors file, which other programs read and
treadle.load_model(FILE, model) loads. The checkpoint is verified first; one that several processes wrote in
shards is put together. Nothing of the run's configuration is built.

Where the task has nothing but a model (treadle.SupervisedTask), the names are the model's own. torch.export
and ONNX, which need the model itself, are in Python: treadle.export.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """RUN and the options."""
    add_run(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="default: RUN/model.safetensors")
    parser.add_argument(
        "--checkpoint",
        metavar="WHICH",
        help="best, last, or the name of one; default: the best where any has a score, else the last",
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")


def run(arguments: argparse.Namespace) -> int:
    """Write the file; returns the exit code."""
    from pathlib import Path

    from treadle.checkpoint import list_checkpoints
    from treadle.cli.printing import shown_path
    from treadle.cli.rebuild import find_run
    from treadle.interop.weights import export_weights
    from treadle.loading import read_weights

    found = find_run(arguments.which)
    assert found.path is not None
    path = Path(arguments.output) if arguments.output is not None else found.path / "model.safetensors"
    if path.suffix != ".safetensors":
        raise UsageError(f"--output {path}: the file's name must end in .safetensors")
    if path.exists() and not arguments.force:
        raise UsageError(f"{shown_path(path)} is there already; --force replaces it, -o names another")
    which = arguments.checkpoint
    if which is None:
        folder = found.checkpoint_folder
        scored = folder is not None and any(one.score is not None for one in list_checkpoints(folder))
        which = "best" if scored else "last"
    try:
        state, source = read_weights(found, which)
    except ValueError as error:
        raise UsageError(str(error).removeprefix("load_model: ")) from None
    sha = export_weights(state, path)
    print(f"from            {shown_path(source)}")
    print(f"file            {shown_path(path)}  ({path.stat().st_size:,} bytes)")
    print(f"weights_sha256  {sha}")
    return DONE
