"""Doing the same thing on all ranks, and failing on all of them when one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
import torch.distributed as dist

from skills_pipe.errors import UserError

T = TypeVar("T")

_group: ContextVar[dist.ProcessGroup | None] = ContextVar("group", default=None)


def rank() -> int:
    """Rank of this process, 0 without a process group."""
    return dist.get_rank() if _grouped() else 0


def world_size() -> int:
    """Number of processes that train together, 1 without a process group."""
    return dist.get_world_size() if _grouped() else 1


def new_group() -> dist.ProcessGroup | None:
    """A second way for all ranks to talk, beside the one that training uses; None without a process group."""
    return dist.new_group(backend="gloo") if _grouped() else None


@contextmanager
def talking_in(group: dist.ProcessGroup | None) -> Iterator[None]:
    """Everything of this module goes through ``group`` inside this block, in this thread."""
    token = _group.set(group)
    try:
        yield
    finally:
        _group.reset(token)


def present_group() -> dist.ProcessGroup | None:
    """The group that :func:`talking_in` set for this thread; None for the one of all ranks."""
    return _group.get()


def everywhere(statement: bool) -> bool:
    """Whether ``statement`` holds on every rank."""
    if not _grouped():
        return statement
    # A CPU tensor goes through gloo, so that waiting does not stop a GPU's stream.
    least = torch.tensor(int(statement))
    dist.all_reduce(least, dist.ReduceOp.MIN, group=_group.get())
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
    if not _grouped():
        return [value]
    values: list[T] = [value] * world_size()
    dist.all_gather_object(values, value, group=_group.get())
    return values


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()
