"""Which of how many processes this one is, as its launcher says it in the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """One process among several.

    Attributes:
        rank: its number among all, from 0.
        world_size: how many there are.
        local_rank: its number on this machine, which is the number of its device.
        address, port: where rank 0 listens while the processes find each other.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0


def place_of(environment: Mapping[str, str] | None = None) -> Place:
    """What torchrun's variables say, or SLURM's for a step that `srun` started; else one process alone.

    torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. Of SLURM's, SLURM_STEP_NUM_TASKS
    counts, which only `srun` sets: the batch script itself, and a shell of `salloc`, are one process alone.
    The port then follows from the job's number unless MASTER_PORT is set.

    Raises:
        ValueError: the variables do not fit together; the text says which.
    """
    given = os.environ if environment is None else environment
    if "RANK" in given and "WORLD_SIZE" in given:
        rank, world_size = _number(given, "RANK"), _number(given, "WORLD_SIZE")
        place = Place(
            rank,
            world_size,
            _number(given, "LOCAL_RANK") if "LOCAL_RANK" in given else rank,
            given.get("MASTER_ADDR", "127.0.0.1"),
            _number(given, "MASTER_PORT") if "MASTER_PORT" in given else 29500,
        )
    elif "SLURM_STEP_NUM_TASKS" in given and "SLURM_PROCID" in given:
        nodes = given.get("SLURM_STEP_NODELIST", given.get("SLURM_NODELIST", "127.0.0.1"))
        job = int(re.sub(r"\D", "", given.get("SLURM_JOB_ID", "")) or 0)
        place = Place(
            _number(given, "SLURM_PROCID"),
            _number(given, "SLURM_STEP_NUM_TASKS"),
            _number(given, "SLURM_LOCALID"),
            given.get("MASTER_ADDR", first_node(nodes)),
            _number(given, "MASTER_PORT") if "MASTER_PORT" in given else 15000 + job % 20000,
        )
    else:
        return Place()
    if not 0 <= place.rank < place.world_size:
        raise ValueError(
            f"the environment says rank {place.rank} of {place.world_size} processes; ranks go from 0 to one "
            "less than their number (RANK and WORLD_SIZE, or SLURM_PROCID and SLURM_STEP_NUM_TASKS)"
        )
    return place


def first_node(nodes: str) -> str:
    """The first name of a SLURM list of nodes: "gpu[003-007,011],login" begins with gpu003."""
    match = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\])?([^,]*)", nodes.strip())
    if match is None:
        raise ValueError(f"SLURM's list of nodes is {nodes!r}; no name of a node can be found in it")
    return match[1] + (match[2] or "") + (match[3] or "")


def _number(given: Mapping[str, str], name: str) -> int:
    try:
        return int(given[name])
    except KeyError:
        raise ValueError(f"the environment has no {name}, which goes with the variables it has") from None
    except ValueError:
        raise ValueError(f"the environment says {name}={given[name]!r}; it must be a whole number") from None
