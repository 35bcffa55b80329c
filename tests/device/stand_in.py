"""A device that is not the CPU, on any machine that has a C++ compiler; see stand_in.cpp."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import types
from collections.abc import Callable
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("stand_in.cpp")
NAME = "standin"


def compiler() -> str | None:
    """The C++ compiler of this machine, if it has one."""
    return shutil.which(os.environ.get("CXX", "g++"))


def build(library: Path) -> None:
    """Compile the device, in under ten seconds."""
    torch_folder = Path(torch.__file__).parent
    include = torch_folder / "include"
    command = [
        compiler() or "g++",
        "-shared",
        "-fPIC",
        "-O1",
        "-std=c++20",
        "-w",
        str(SOURCE),
        "-o",
        str(library),
    ]
    command += [f"-I{include}", f"-I{include / 'torch/csrc/api/include'}", f"-L{torch_folder / 'lib'}"]
    command += ["-lc10", "-ltorch_cpu", f"-Wl,-rpath,{torch_folder / 'lib'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


class Generators:
    """The device's random numbers are the CPU's; what is beside them shows whether somebody keeps it."""

    state = torch.zeros(16, dtype=torch.uint8)

    @classmethod
    def get(cls) -> list[torch.Tensor]:
        return [cls.state.clone()]

    @classmethod
    def set(cls, states: list[torch.Tensor]) -> None:
        cls.state = states[0].clone()

    @classmethod
    def seed(cls, seed: int) -> None:
        cls.state = torch.full((16,), seed % 256, dtype=torch.uint8)


def register(library: Path) -> Callable[[], int]:
    """Make it this process's accelerator; returns what counts how often the host took something from it."""
    torch.ops.load_library(library)
    torch.utils.rename_privateuse1_backend(NAME)
    module = types.ModuleType(f"torch.{NAME}")
    module.is_available = module.is_initialized = lambda: True  # type: ignore[attr-defined]
    module.device_count = lambda: 1  # type: ignore[attr-defined]
    module.current_device = lambda: 0  # type: ignore[attr-defined]
    module._is_in_bad_fork = lambda: False  # type: ignore[attr-defined]
    module.manual_seed_all = Generators.seed  # type: ignore[attr-defined]
    module.get_rng_state_all = Generators.get  # type: ignore[attr-defined]
    module.set_rng_state_all = Generators.set  # type: ignore[attr-defined]
    torch._register_device_module(NAME, module)  # type: ignore[no-untyped-call]
    torch.utils.generate_methods_for_privateuse1_backend()
    reads = ctypes.CDLL(str(library)).stand_in_reads
    reads.restype = ctypes.c_long
    return reads
