"""Imports of torch and transformers in a quarter less time: nothing is done twice, and no garbage is looked for."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_SCANNING = "transformers.utils.import_utils"
"""The module whose functions find out what the others of transformers have."""


@contextmanager
def importing() -> Iterator[None]:
    """Import torch, transformers and what needs them inside of this block."""
    with _without_collecting(), _scanning_once():
        yield


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Modules are some millions of objects that stay.

    Python's collector of garbage would look at all of them again and again while they come, and never after the block.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        # Once: what a program in the same process leaves later is garbage like any other.
        if not gc.get_freeze_count():
            gc.freeze()
    finally:
        gc.enable()


@contextmanager
def _scanning_once() -> Iterator[None]:
    """transformers reads all of its source files for the names in them, and then again.

    It remembers the folders it has read, but the last 128 only of more than 400 (5.23), so that none is found again.
    """
    finder = _Scanning()
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]


class _Scanning:
    """Imports that one module as it is, but for its memory of folders, which has no limit then."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As :meth:`importlib.abc.MetaPathFinder.find_spec`; None leaves a module to the usual finders."""
        if name != _SCANNING:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _remember_all_folders(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _remember_all_folders(module: ModuleType) -> None:
    """Other versions of transformers may have no such function, or one without a limit: it stays as it is."""
    name = "create_import_structure_from_path"
    plain = getattr(getattr(module, name, None), "__wrapped__", None)
    if plain is not None:
        setattr(module, name, cache(plain))
