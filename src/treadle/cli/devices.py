"""`--devices N`: the same command on several processes, which torchrun's machinery starts and watches."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from treadle.cli.arguments import FAILED, INTERRUPTED, USAGE, UsageError


def add_devices(parser: argparse.ArgumentParser) -> None:
    """The option --devices."""
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="on N processes of this machine, each with its own device, as torchrun --nproc-per-node N",
    )


def check_devices(devices: int, strategy: object) -> None:
    """Raise a UsageError where so many processes cannot be started, or would not work together."""
    if devices < 1:
        raise UsageError(f"--devices {devices}: give a whole number from 1 on")
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        raise UsageError(
            f"--devices {devices}: torchrun has started this process already; leave out one of them"
        )
    if devices > 1 and strategy == "single":
        raise UsageError(
            f"--devices {devices} with trainer.strategy 'single': allowed are auto, all_reduce, ddp, fsdp2"
        )


def launch(devices: int, words: Sequence[str]) -> int:
    """Run `treadle WORDS` on several processes; returns the exit code of the first that failed.

    SIGTERM, and a SIGINT from the terminal, reach every process; all save the same step and leave with 75.
    """
    # Without it a restarted group hangs at times where gloo is used.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    options = [
        *("--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", f"--rdzv-id=treadle-{os.getpid()}"),
        *(f"--nproc-per-node={devices}", "--signals-to-handle=SIGTERM,SIGHUP,SIGQUIT"),
    ]
    arguments = parse_args([*options, "--module", "treadle.cli", *words])  # type: ignore[no-untyped-call]
    config, program, rest = config_from_args(arguments)
    # The terminal sends it to the processes too. A function, unlike SIG_IGN, is not inherited by them.
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        elastic_launch(config=config, entrypoint=program)(*rest)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        if first.exitcode in (INTERRUPTED, USAGE):  # the processes have said it all
            return first.exitcode
        print(str(error).strip(), file=sys.stderr)
        return FAILED
    except SignalException:
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    return 0
