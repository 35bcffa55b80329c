"""Chains of SIGKILLs: a training is killed again and again, resumed every time, and compared at its end."""

from __future__ import annotations

import random
import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.client import Server
from tests.crash.program import Setting, differences, record_of


@dataclass
class Totals:
    """What a chain, or many, came to."""

    kills: int = 0
    trainings: int = 0
    longest: int = 0  # kills in one training
    before_first: int = 0  # kills before the first checkpoint
    steps: Counter[int] = field(default_factory=Counter)  # where the resumed ones went on
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Totals) -> None:
        self.kills += other.kills
        self.trainings += other.trainings
        self.longest = max(self.longest, other.longest)
        self.before_first += other.before_first
        self.steps.update(other.steps)
        self.wrong += other.wrong


def chain(server: Server, setting: Setting, kills: int, folder: Path, chance: random.Random) -> Totals:
    """Kill trainings of one setting so many times in all, and compare each with the uninterrupted one.

    The moments are drawn so that many fall into the start, the first save and the end as well.
    """
    folder.mkdir(parents=True)
    began = time.monotonic()
    server.start(setting, folder / "whole").finish()
    duration = time.monotonic() - began
    whole = record_of(folder / "whole")
    totals = Totals()
    while totals.kills < kills:
        place = folder / f"killed-{totals.trainings}"
        died = 0
        while totals.kills < kills:
            reach = duration * chance.choice((0.1, 0.4, 0.8))
            if not server.start(setting, place).kill(chance.uniform(0.0, reach)):
                break
            died += 1
            totals.kills += 1
            at = newest_step(place)
            totals.steps[at] += 1
            totals.before_first += at == 0
        server.start(setting, place).finish()  # a finished run is resumed too: to the same end
        totals.trainings += 1
        totals.longest = max(totals.longest, died)
        wrong = differences(whole, record_of(place))
        if wrong or len(list(folder.glob(f"{place.name}-*"))) > 0:
            totals.wrong.append(f"{setting.name}, {place} after {died} kills: {wrong}")
        else:
            shutil.rmtree(place)
    return totals


def newest_step(place: Path) -> int:
    """The step of the newest committed checkpoint, 0 without one; also one that was to be replaced."""
    names = [path.name for path in (place / "checkpoints").glob("*")]
    found = [re.fullmatch(r"step-(\d+)|\.step-(\d+)\.old-.*", name) for name in names]
    return max((int(match[1] or match[2]) for match in found if match), default=0)
