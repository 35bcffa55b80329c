"""Damage files of a run in every way that comes to mind, and read them: no wrong load, no hang, no memory.

    python -m tests.crash.damage --inputs 20000 --seed 0

A checkpoint that is damaged must be refused, with its name, and the one before it be loaded. One that is
forged, with hashes that fit, may load (nobody can tell), but must raise nothing else and stay within bounds.
The record has no hashes: what can be read of it is read, and anything else is one error that names the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from treadle.checkpoint import CheckpointError, newest, write
from treadle.checkpoint.manifest import FILES, MANIFEST, STATE, Manifest
from treadle.runs import Run, RunError

SECONDS = 10.0
"""More for one input is a hang."""
MEMORY = 64 << 20
"""More growth of the process in bytes, over all inputs, than this is too much: the files have 5 kB."""

Damage = Callable[[Path, random.Random], None]


def contents(value: float) -> dict[str, Any]:
    return {
        "model": {"a": torch.full((40, 5), value), "b": torch.arange(9).to(torch.bfloat16)},
        "optimizers": {"main": {0: {"momentum": torch.full((40, 5), value), "step": 7}}},
        "values": [value, float("nan"), (True, None), {"text": "é", 3: b"bytes"}],
        "rng": {"torch": torch.arange(500, dtype=torch.uint8)},
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(one[k], other[k]) for k in one)
        )
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or (one != one and other != other))


# ---- ways to damage bytes ------------------------------------------------------------------------------


def flip_bit(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def flip_bit_in_front(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(min(len(data), 64))] ^= 1 << chance.randrange(8)


def set_bytes(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    for position in range(start, min(len(data), start + chance.choice((1, 2, 8, 512)))):
        data[position] = chance.choice((0, 255, chance.randrange(256)))


def truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def extend(data: bytearray, chance: random.Random) -> None:
    data += bytes(chance.randrange(256) for _ in range(chance.choice((1, 8, 600))))


def cut_out(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    del data[start : start + chance.choice((1, 7, 300))]


def repeat(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    data[start:start] = data[start : start + chance.choice((1, 16, 300))]


def huge_number(data: bytearray, chance: random.Random) -> None:
    digits = [i for i, byte in enumerate(data) if 48 <= byte < 58]
    if not digits:
        return extend(data, chance)
    at = chance.choice(digits)
    data[at : at + 1] = chance.choice(
        (b"9" * 20, b"-1", b"1e9", b"0.5", b"null", b'"x"', b"[[]]", b"9" * 5000)
    )
    return None


def other_word(data: bytearray, chance: random.Random) -> None:
    words = (
        b"$tensor",
        b"$tuple",
        b"$dict",
        b"$bytes",
        b"$int",
        b"$call",
        b"F32",
        b"BF16",
        b"U8",
        b"\\ud800",
    )
    quotes = [i for i, byte in enumerate(data) if byte == 34]
    if len(quotes) < 2:
        return flip_bit(data, chance)
    number = chance.randrange(len(quotes) - 1)
    data[quotes[number] + 1 : quotes[number + 1]] = chance.choice(words)
    return None


BYTES = (
    *(flip_bit, flip_bit_in_front, set_bytes, truncate, extend, cut_out, repeat, huge_number, other_word),
)


# ---- ways to damage a folder ---------------------------------------------------------------------------


def damage_bytes(folder: Path, chance: random.Random) -> None:
    path = folder / chance.choice((*FILES, MANIFEST))
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 1, 3))):
        if data:
            chance.choice(BYTES)(data, chance)
    path.write_bytes(data)


def remove_file(folder: Path, chance: random.Random) -> None:
    for name in chance.sample((*FILES, MANIFEST), chance.choice((1, 2, 4))):
        (folder / name).unlink()


def add_file(folder: Path, chance: random.Random) -> None:
    name = chance.choice(("model.pt", "pickle.pkl", ".hidden", "a b", "model.safetensors.bak", "é", "sub"))
    if name == "sub":
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(b"x" * chance.randrange(3))


def swap_files(folder: Path, chance: random.Random) -> None:
    one, other = chance.sample((*FILES, MANIFEST), 2)
    data = (folder / one).read_bytes()
    (folder / one).write_bytes((folder / other).read_bytes())
    (folder / other).write_bytes(data)


def foreign_file(folder: Path, chance: random.Random) -> None:
    other = folder.parent / "step-00000001"
    for name in chance.sample((*FILES, MANIFEST), chance.choice((1, 2, 3, 4))):
        shutil.copy(other / name, folder / name)


def newer_version(folder: Path, chance: random.Random) -> None:
    fields = json.loads((folder / MANIFEST).read_bytes())
    fields["format"] = chance.choice((2, 3, 10**9, "2", None, 1.0, True, [1]))
    (folder / MANIFEST).write_text(json.dumps(fields))


def link_file(folder: Path, chance: random.Random) -> None:
    name = chance.choice((*FILES, MANIFEST))
    (folder / name).unlink()
    target = chance.choice(
        (folder.parent / "step-00000001" / name, Path("/dev/zero"), Path("/etc/passwd"), folder)
    )
    (folder / name).symlink_to(target)


def forge(folder: Path, chance: random.Random) -> None:
    """Hashes and sizes fit what is there."""
    name = chance.choice(FILES)
    data = bytearray((folder / name).read_bytes())
    for _ in range(chance.choice((1, 1, 3))):
        if data:
            chance.choice(BYTES)(data, chance)
    if chance.random() < 0.1:
        data = bytearray(b"[" * 100_000) if name == STATE else bytearray((1 << 40).to_bytes(8, "little"))
    (folder / name).write_bytes(data)
    manifest = Manifest.from_bytes((folder / MANIFEST).read_bytes())
    files = {**manifest.files, name: (len(data), hashlib.sha256(data).hexdigest())}
    forged = Manifest(manifest.step, manifest.score, manifest.version, files)
    (folder / MANIFEST).write_bytes(forged.to_bytes())


FOLDERS: dict[str, tuple[Damage, int]] = {
    "bytes": (damage_bytes, 50),
    "forged": (forge, 30),
    "removed": (remove_file, 3),
    "added": (add_file, 3),
    "swapped": (swap_files, 4),
    "foreign": (foreign_file, 4),
    "newer": (newer_version, 3),
    "linked": (link_file, 3),
}


# ---- reading it ----------------------------------------------------------------------------------------


def read_checkpoint(folder: Path, name: str, expected: dict[int, dict[str, Any]]) -> str:
    """How it ended: "refused", "loaded" or "unchanged"; anything else is raised."""
    found = newest(folder)
    assert found is not None, "nothing found"
    if found.step == 2:
        if name == "forged":
            return "loaded"
        assert same(found.contents, expected[2]), "a wrong load"
        return "unchanged"
    assert same(found.contents, expected[1]), "the one before is wrong"
    assert found.skipped[0][0] == folder / "step-00000002", "not said which was skipped"
    reason = found.skipped[0][1]
    assert any(file in reason for file in (*FILES, MANIFEST, "does not belong")), f"names no file: {reason}"
    return "refused"


def read_run(folder: Path) -> str:
    """Read all of a run, then try to go on with it."""
    outcome = "unchanged"
    for go_on in (False, True):
        try:
            run = Run.reopen(folder) if go_on else Run.open(folder)
            with run:
                for name in run.names():
                    run.series(name)
                    run.downsample(name, 5)
                assert run.history is not None
                assert (run.events, run.clock, run.config, run.environment, run.status, run.step) is not None
                if go_on:
                    run.rewind(3)
                    run.append_steps([("loss", 4, 1.0)])
        except RunError as error:
            if str(folder) not in str(error):
                raise ValueError(f"names no file: {error}") from error
            outcome = "refused"
    return outcome


RUN_FILES = ("run.json", "config.json", "environment.json", "metrics.sqlite")


def hang(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} seconds")


def attack(inputs: int, seed: int, scratch: Path) -> tuple[Counter[str], list[str]]:
    """Read so many damaged inputs; counts of what came of them, and what was wrong."""
    chance, counts, wrong = random.Random(seed), Counter[str](), list[str]()
    expected = {step: contents(float(step)) for step in (1, 2)}
    for step in (1, 2):
        write(scratch / "checkpoints", step, expected[step])
    whole = scratch / "checkpoints" / "step-00000002"
    good = {name: (whole / name).read_bytes() for name in (*FILES, MANIFEST)}
    with Run.create(scratch / "run", config={"a": 1}, environment={"seed": 3}) as run:
        run.append_steps([("loss", step, 1 / step) for step in range(1, 700)])
        run.append_epoch(1, 600, {"val/loss": 0.5})
        run.event("resumed", 3, why="x")
    record = {name: (scratch / "run" / name).read_bytes() for name in RUN_FILES}
    names, weights = list(FOLDERS), [weight for _, weight in FOLDERS.values()]
    signal.signal(signal.SIGALRM, hang)
    for number in range(inputs):
        name = "record" if chance.random() < 0.15 else chance.choices(names, weights)[0]
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            if name == "record":
                for file, data in record.items():
                    (scratch / "run" / file).write_bytes(data)
                victim = chance.choice(RUN_FILES)
                changed = bytearray(record[victim])
                chance.choice(BYTES)(changed, chance)
                (scratch / "run" / victim).write_bytes(changed)
                outcome = read_run(scratch / "run")
                for leftover in ("-wal", "-shm", "-journal"):
                    (scratch / "run" / f"metrics.sqlite{leftover}").unlink(missing_ok=True)
            else:
                shutil.rmtree(whole)
                whole.mkdir()
                for file, data in good.items():
                    (whole / file).write_bytes(data)
                FOLDERS[name][0](whole, chance)
                outcome = read_checkpoint(scratch / "checkpoints", name, expected)
        except CheckpointError as error:
            outcome = f"no checkpoint at all: {error}"
            wrong.append(f"input {number} ({name}): {outcome}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
            outcome = "wrong"
            wrong.append(f"input {number} ({name}): {type(error).__name__}: {error}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        counts[f"{name}: {outcome}"] += 1
    return counts, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        attack(50, given.seed + 1, Path(scratch) / "first")  # what is imported and cached once
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        counts, wrong = attack(given.inputs, given.seed, Path(scratch) / "all")
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    for outcome, count in sorted(counts.items()):
        print(f"{count:7}  {outcome}")
    print(
        f"{counts.total()} damaged inputs, {len(wrong)} wrong; memory grew by {growth / 2**20:.1f} MiB at "
        f"most; {time.monotonic() - began:.0f} seconds"
    )
    for line in wrong[:20]:
        print(line)
    return 1 if wrong or growth > MEMORY else 0


if __name__ == "__main__":
    sys.exit(main())
