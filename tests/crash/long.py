"""The long version of the random kills: any number of them over settings drawn from the whole matrix.

    python -m tests.crash.long --kills 1000 --seed 0

Half of the kills go to the named settings in turn, the other half to settings drawn at random.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.chain import Totals, chain
from tests.crash.client import Server
from tests.crash.program import SETTINGS, Setting


def drawn(chance: random.Random, number: int) -> Setting:
    """A setting with every feature on or off by chance."""
    stream = chance.random() < 0.25
    accumulate = chance.choice((1, 1, 2, 3))
    return Setting(
        name=f"drawn {number}",
        samples=chance.choice((22, 30, 34)) * accumulate,
        epochs=chance.choice((2, 4)),
        stream=stream,
        shuffle=not stream and chance.random() < 0.7,
        workers=0 if chance.random() < 0.6 else 2,
        accumulate=accumulate,
        microbatch_size=chance.choice((None, None, 2)),
        dropout=chance.choice((0.0, 0.4)),
        augment=chance.random() < 0.5,
        precision=chance.choice(("fp32", "fp32", "bf16", "fp16")),
        scheduler=chance.choice(("", "step", "epoch")),
        averaging=chance.random() < 0.5,
        stopping=chance.random() < 0.3,
        background=chance.random() < 0.6,
        every_steps=chance.choice((None, 1, 1, 2, 5)),
        keep_last=chance.choice((1, 2, None)),
        log_every=chance.choice((1, 3, 50)),
        eval_steps=chance.choice((None, None, 3)),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--each", type=int, default=10, help="kills in one setting before the next")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance, named = random.Random(given.seed), list(SETTINGS.values())
    totals, began, number = Totals(), time.monotonic(), 0
    with tempfile.TemporaryDirectory() as scratch, Server() as server:
        while totals.kills < given.kills:
            setting = named[number // 2 % len(named)] if number % 2 == 0 else drawn(chance, number)
            kills = min(given.each, given.kills - totals.kills)
            one = chain(server, setting, kills, Path(scratch) / str(number), chance)
            totals.add(one)
            number += 1
            print(f"{totals.kills:5} kills  {setting.name:20} {'WRONG' if one.wrong else 'same'}", flush=True)
            for line in one.wrong:
                print(f"      {setting}\n      {line}", flush=True)
        left = server.survivors()
    print(
        f"{totals.kills} kills in {number} chains and {totals.trainings} trainings, at most {totals.longest} "
        f"in one, {totals.before_first} before the first checkpoint; resumed at {len(totals.steps)} "
        f"different steps; {len(totals.wrong)} wrong, {len(left)} processes left; "
        f"{time.monotonic() - began:.0f} seconds"
    )
    return 1 if totals.wrong or left else 0


if __name__ == "__main__":
    sys.exit(main())
