"""Building the device, and telling this process's torch of it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sysconfig
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from types import ModuleType

import torch
import torch.distributed as dist
from torch.utils.cpp_extension import include_paths, library_paths

NAME = "standin"
BACKENDS = f"cpu:gloo,{NAME}:carried"
"""Of a process group that carries tensors of both places."""

_SOURCE = Path(__file__).with_name("device.cpp")
_MODULE = "standin_device"


def build(folder: Path) -> Path:
    """The library; the C++ compiler of this machine takes a minute for it, unless ``folder`` has it already."""
    version = hashlib.sha256(_SOURCE.read_bytes() + torch.__version__.encode()).hexdigest()[:16]
    found = folder / f"{_MODULE}-{version}.so"
    if found.exists():
        return found
    made = folder / f"{found.name}.{os.getpid()}"
    includes = [f"-I{path}" for path in (*include_paths(), sysconfig.get_paths()["include"])]
    libraries = [f"-L{path}" for path in library_paths()] + [
        f"-l{name}" for name in ("c10", "torch", "torch_cpu", "torch_python")
    ]
    command = ["g++", "-O0", "-std=c++20", "-shared", "-fPIC", "-w", f"-DTORCH_EXTENSION_NAME={_MODULE}"]
    done = subprocess.run(
        [*command, *includes, str(_SOURCE), "-o", str(made), *libraries], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    # Whole or not there: other processes of a test run look for it too.
    return made.replace(found)


def register(library: Path) -> None:
    """Give this process the device ``standin`` and the backend ``carried`` for messages; for good."""
    if hasattr(torch, NAME):
        return
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, _module())
    loader = ExtensionFileLoader(_MODULE, str(library))
    extension = importlib.util.module_from_spec(importlib.util.spec_from_loader(_MODULE, loader))
    loader.exec_module(extension)

    def carried(store: dist.Store, rank: int, size: int, timeout: object) -> object:
        return extension.carry(dist.ProcessGroupGloo(store, rank, size, timeout))

    dist.Backend.register_backend("carried", carried, devices=[NAME])
    _let_data_change_places()


def _let_data_change_places() -> None:
    """``tensor.data = tensor.to(device)``, by which FSDP2 moves buffers, is for devices that torch itself knows."""
    own = torch.Tensor.data

    def put(tensor: torch.Tensor, value: torch.Tensor) -> None:
        if tensor.device == value.device or NAME not in (tensor.device.type, value.device.type):
            own.__set__(tensor, value)
        else:
            moved = value.detach()
            if isinstance(tensor, torch.nn.Parameter):
                moved = torch.nn.Parameter(moved, requires_grad=tensor.requires_grad)
            torch.utils.swap_tensors(tensor, moved)

    torch.Tensor.data = property(own.__get__, put)


def _module() -> ModuleType:
    """``torch.standin``: streams and events do nothing, as those of ``torch.cpu``."""
    module = ModuleType(f"torch.{NAME}")
    # The host's streams lack this one method, which checkpoints call on that of a device.
    torch.cpu.Stream.synchronize = lambda self: None
    for name in ("Stream", "Event", "current_stream", "stream", "synchronize", "set_device"):
        setattr(module, name, getattr(torch.cpu, name))
    module.current_device = lambda: 0
    module.device_count = lambda: 1
    module.is_available = module.is_initialized = lambda: True
    module._is_in_bad_fork = lambda: False
    module.manual_seed_all = lambda seed: None
    module.get_rng_state = lambda device=None: torch.get_rng_state()
    module.set_rng_state = lambda state, device=None: torch.set_rng_state(state)
    module.get_amp_supported_dtype = lambda: [torch.bfloat16]
    return module
