"""Doing the same thing on all ranks, and failing on all of them when one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from skills_pipe.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """A second way for all ranks to talk, beside the one that training uses.

    It knows by itself who talks: a thread that outlives the process group of training must fail, and not take its rank
    for the only one.

    Attributes:
        rank: of this process.
        size: number of ranks.
        channel: None where this process trains alone.
    """

    rank: int
    size: int
    channel: dist.ProcessGroup | None

    @classmethod
    def new(cls) -> Group:
        """To be called on every rank."""
        channel = dist.new_group(backend="gloo") if _grouped() else None
        return cls(rank=rank(), size=world_size(), channel=channel)


_group: ContextVar[Group | None] = ContextVar("group", default=None)


def rank() -> int:
    """Rank of this process, 0 without a process group."""
    group = _group.get()
    if group is not None:
        return group.rank
    return dist.get_rank() if _grouped() else 0


def world_size() -> int:
    """Number of processes that train together, 1 without a process group."""
    group = _group.get()
    if group is not None:
        return group.size
    return dist.get_world_size() if _grouped() else 1


@contextmanager
def talking_in(group: Group) -> Iterator[None]:
    """Everything of this module goes through ``group`` inside this block, in this thread."""
    token = _group.set(group)
    try:
        yield
    finally:
        _group.reset(token)


def channel() -> dist.ProcessGroup | None:
    """What this thread talks through, as :func:`talking_in` set it; None for the group of training."""
    group = _group.get()
    return group.channel if group is not None else None


def everywhere(statement: bool) -> bool:
    """Whether ``statement`` holds on every rank."""
    if world_size() == 1:
        return statement
    # A CPU tensor goes through gloo, so that waiting does not stop a GPU's stream.
    least = torch.tensor(int(statement))
    dist.all_reduce(least, dist.ReduceOp.MIN, group=channel())
    return bool(least.item())


def on_all(action: Callable[[], T]) -> list[T]:
    """Run ``action`` on every rank and return every rank's result, in the order of ranks, on every rank.

    Raises:
        Exception: what ``action`` raised; on a rank where it went well, the first failure of another rank.
    """
    result: T | None = None
    failure: Exception | None = None
    try:
        result = action()
    except Exception as error:  # carried to the other ranks, then raised below
        failure = error
    told = failure if failure is None or isinstance(failure, UserError | OSError) else RuntimeError(repr(failure))
    outcomes = _gather((result, told))
    if failure is not None:
        raise failure
    for _, reported in outcomes:
        if reported is not None:
            raise reported
    return [value for value, _ in outcomes]  # type: ignore[misc]


def on_first(action: Callable[[], T]) -> T:
    """Run ``action`` on rank 0 only and return its result, or raise its error, on every rank."""
    return on_all(lambda: action() if rank() == 0 else None)[0]  # type: ignore[return-value]


def _gather(value: T) -> list[T]:
    if world_size() == 1:
        return [value]
    values: list[T] = [value] * world_size()
    dist.all_gather_object(values, value, group=channel())
    return values


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()
