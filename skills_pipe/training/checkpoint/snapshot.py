"""What a checkpoint holds, as it was at one step: either the live tensors, or copies of them in host memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from skills_pipe.training.checkpoint import rng, tensors
from skills_pipe.training.checkpoint.state import DataPosition, RunDescription, Trainee, TrainingInfo

WEIGHTS = "weights"
OPTIMIZER = "optimizer"
AVERAGE = "average"

States = Mapping[str, Mapping[str, Any]]
"""State dicts by their names: :data:`WEIGHTS`, and where there are such, :data:`OPTIMIZER` and :data:`AVERAGE`."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All of this rank that goes into a checkpoint.

    Attributes:
        states: what is written from all ranks together.
        generators: state of the random numbers.
        scheduler: state of the learning rate schedule, None without one.
        model: only its configuration is looked at.
        info: counters.
        position: in the data.
    """

    states: States
    generators: Mapping[str, Any]
    scheduler: Mapping[str, Any] | None
    model: torch.nn.Module
    info: TrainingInfo
    position: DataPosition

    @classmethod
    def of(cls, trainee: Trainee, run: RunDescription, info: TrainingInfo, position: DataPosition) -> Snapshot:
        """The present state; its tensors are the live ones, and change when training goes on."""
        return cls(
            states=live_states(trainee, run),
            generators=rng.state(),
            scheduler=copy.deepcopy(trainee.scheduler.state_dict()) if trainee.scheduler is not None else None,
            model=trainee.model,
            info=info,
            position=position,
        )


def live_states(trainee: Trainee, run: RunDescription) -> States:
    """The tensors that a checkpoint saves; to be called on every rank.

    An optimizer that has made no step yet has nothing to save. To be asked would make torch give it a state, as of a
    step without gradients, and the steps after it would be others.
    """
    states: dict[str, Mapping[str, Any]] = {WEIGHTS: tensors.model_state(trainee.model)}
    if run.save_optimizer and trainee.optimizer.state:
        states[OPTIMIZER] = tensors.optimizer_state(trainee)
    if trainee.average is not None:
        states[AVERAGE] = trainee.average.state()
    return states


class HostBuffers:
    """Host memory for copies of a rank's tensors, kept from one snapshot to the next.

    Taking memory from the system is several times slower than copying into memory that one has. A GPU copies into
    pinned memory by itself.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], torch.Tensor] = {}

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(buffer.nbytes for buffer in self._kept.values())

    def reserve(self, states: States) -> None:
        """Take the memory that :meth:`hold` will need, as far as it is not there; no values are looked at.

        Raises:
            RuntimeError: there is not enough memory; some of it may be taken.
        """
        for key, tensor in _tensors(states):
            self._buffer(key, _local(tensor))

    def release(self) -> None:
        """Give the memory back."""
        self._kept.clear()

    def hold(self, snapshot: Snapshot) -> Snapshot:
        """The same snapshot with copies of the tensors, which the next call overwrites."""
        found = {key: _local(tensor) for key, tensor in _tensors(snapshot.states)}
        copies = {key: self._buffer(key, tensor) for key, tensor in found.items()}
        for key, tensor in found.items():
            copies[key].copy_(tensor, non_blocking=True)
        if any(tensor.is_cuda for tensor in found.values()):
            torch.cuda.synchronize()
        states = {
            part: {name: _like(value, copies.get((part, name))) for name, value in state.items()}
            for part, state in snapshot.states.items()
        }
        return replace(snapshot, states=states)

    def _buffer(self, key: tuple[str, str], like: torch.Tensor) -> torch.Tensor:
        kept = self._kept.get(key)
        if kept is None or kept.shape != like.shape or kept.dtype != like.dtype:
            # Written to, so that the system hands the pages out now.
            kept = torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda).zero_()
            self._kept[key] = kept
        return kept


def _tensors(states: States) -> Iterator[tuple[tuple[str, str], torch.Tensor]]:
    for part, state in states.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                yield (part, name), value.detach()


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _like(value: Any, held: torch.Tensor | None) -> Any:
    """``value`` with its memory replaced by ``held``; a copy of what is no tensor."""
    if held is None:
        return copy.deepcopy(value)
    # Not from_local, which would put the copy back onto the device of the mesh.
    return DTensor(held, value._spec, requires_grad=False) if isinstance(value, DTensor) else held
