"""Whether a kernel computes what ours does: both beside ours in a higher precision.

What is computed in half precision is never exact, so a kernel cannot be held to a fixed difference: how much rounding
costs depends on what is computed. Ours in the same precision says how much that is. Both round inputs, products and
results of the same kinds, at other places: errors of one size, which add up as independent ones do. A kernel that is
off four times as much would have to round sixteen times as often. One that computes something else, as another window,
scale or sum, is off by a part of the value itself, tenfold that and more.

Where ours happens to round nothing but its result, as attention does on a CPU, that is the least that is granted: a
rounded number is off by 0.2 times the precision of its type, as a root of mean squares. Attention that rounds its
weights too, as kernels do, was seen to be off 1.3 to 1.8 times as much. And where ours rounds more than a kernel would,
as capped scores on a GPU, that is no excuse: ten rounded results are the most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from skills_pipe.errors import first_line

_TIMES = 4.0
"""How much further than ours a kernel may be off."""

_ROUNDED = {torch.bfloat16: 0.2, torch.float16: 0.2, torch.float32: 2.0}
"""What a result may be off at least, in units of the ``eps`` of its type: in half precision by being rounded, in
float32 by exponentials, which are that exact on a GPU."""

_MOST = 2.0
"""What is granted in half precision at most, in units of the ``eps`` of the type in which is computed."""

_AT_ONCE = 2**24
"""Numbers that are compared at one time: the gradient of an output layer has a billion."""

C = TypeVar("C", contravariant=True)


class Case(Protocol[C]):
    """Something to compute."""

    @property
    def name(self) -> str:
        """As users are told."""
        ...

    def __call__(self, compute: C, dtype: torch.dtype, /) -> Mapping[str, Tensor]:
        """What ``compute`` gives in a precision: values and gradients by their names."""
        ...


def disagreement(kernel: C, ours: C, cases: Iterable[Case[C]], dtype: torch.dtype) -> str | None:
    """What speaks against ``kernel``, None when nothing does.

    Args:
        kernel: what is to be believed.
        ours: what it would replace, and is compared with.
        cases: to compute.
        dtype: in which it would compute.

    Returns:
        A part of a sentence from its verb on: that it raised something, or by how much it is off and where.
    """
    try:
        # On a GPU what goes wrong is often told only when a number is read, which is in here.
        return next((told for case in cases if (told := _against(kernel, ours, case, dtype)) is not None), None)
    except Exception as error:  # of any kind: a kernel that fails, or cannot be tried, is not used
        return f"cannot be tried: {first_line(error)}"


def _against(kernel: C, ours: C, case: Case[C], dtype: torch.dtype) -> str | None:
    """:func:`disagreement` in one case."""
    exact = case(ours, torch.float64 if dtype == torch.float32 else torch.float32)
    limits = {name: _limit(value, exact[name], dtype) for name, value in case(ours, dtype).items()}
    found = {name: _distance(value, exact[name]) for name, value in case(kernel, dtype).items()}
    for name, distance in found.items():
        limit = limits[name]
        # Not a number is no less than anything.
        if not distance <= limit:
            return f"is off by {distance:.1e} in the {name} of {case.name}, where rounding explains {limit:.1e}"
    return None


def _limit(usual: Tensor, exact: Tensor, dtype: torch.dtype) -> float:
    """How far a kernel may be off, from what ours gives."""
    least = _ROUNDED[usual.dtype] * torch.finfo(usual.dtype).eps
    limit = _TIMES * max(_distance(usual, exact), least)
    return limit if dtype == torch.float32 else min(limit, _MOST * torch.finfo(dtype).eps)


def _distance(value: Tensor, exact: Tensor) -> float:
    """Norm of the difference, as a part of the norm of ``exact``."""
    if value.shape != exact.shape:
        raise ValueError(f"a result has the shape {tuple(value.shape)} instead of {tuple(exact.shape)}")
    apart, whole = (torch.zeros((), dtype=torch.float64, device=exact.device) for _ in range(2))
    parts = zip(value.reshape(-1).split(_AT_ONCE), exact.reshape(-1).split(_AT_ONCE), strict=True)
    for mine, theirs in parts:
        apart += (mine.to(exact.dtype) - theirs).square().sum(dtype=torch.float64)
        whole += theirs.square().sum(dtype=torch.float64)
    return float((apart / whole).sqrt())
