"""The order of trlX's NeMo trainers: as many samples as the steps need, however few or many there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar, overload

import torch

T = TypeVar("T")


class ShuffledCyclicSequence(Sequence[T], Generic[T]):
    """``data`` repeated in a cycle up to ``new_length`` items, and those shuffled once.

    Each item occurs ``new_length // len(data)`` times or once more. There are no epochs: an item may come again before
    another one has come at all.

    Args:
        new_length: number of items.
        data: what is repeated.
        seed: of the order, which is that of trlX for the same seed.

    Raises:
        ValueError: there is nothing to repeat.
    """

    def __init__(self, new_length: int, data: Sequence[T], seed: int) -> None:
        if not data:
            raise ValueError("no data to repeat")
        self._data = data
        self.order: list[int] = torch.randperm(new_length, generator=torch.Generator().manual_seed(seed)).tolist()

    def __len__(self) -> int:
        return len(self.order)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._data[position % len(self._data)] for position in self.order[index]]
        return self._data[self.order[index] % len(self._data)]
