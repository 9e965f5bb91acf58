"""What classes and functions of installed packages take, read from their source: nothing of them is imported.

The packages of a trainer take seconds to import, and sources may do anything when they are. Where the source alone does
not tell, as behind a decorator or in a module that finds its names when they are asked for, nothing is said.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_MOST_STEPS: Final = 8
"""Imports and base classes that are followed."""
_MORE_THAN_IT_SHOWS: Final = (
    *("__getattr__", "sys.modules", "import *", "global "),
    *("globals()", "locals()", "vars()", "setattr(", "exec("),
)
"""Words of modules that may have names which their statements do not give."""
_PLAIN: Final = (
    *(ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Import, ast.ImportFrom, ast.If, ast.Try),
    *(ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Assert, ast.Raise, ast.Pass, ast.Delete),
)
"""Statements whose names are all seen."""
_MAKERS: Final = ("__init__", "__new__")

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What something takes by name.

    Attributes:
        required: name of a parameter -> whether it has no default; without ``self``, in their order.
        takes_any: whether it takes other names too.
    """

    required: Mapping[str, bool]
    takes_any: bool


@dataclass(frozen=True, kw_only=True)
class Nowhere:
    """There is no such thing.

    Attributes:
        module: where it was looked for.
        names: what is there instead; None where there is no such module.
    """

    module: str
    names: tuple[str, ...] | None


def signature_of(path: str, *, folder: str | None = None) -> Signature | Nowhere | None:
    """What the class or function of an import path takes; None where its source does not tell.

    Args:
        path: as ``torch.optim.AdamW``.
        folder: where its program starts: modules there come before installed ones.
    """
    module, _, name = path.rpartition(".")
    return _Sources(folder=folder).look_up(module, name, _MOST_STEPS)


def is_installed(package: str, *, folder: str | None = None) -> bool:
    """Whether there is a package or module of this name, which has no dots."""
    return _Sources(folder=folder).spec(package) is not None


@dataclass(frozen=True, kw_only=True)
class _Sources:
    """The modules that a program finds which starts in ``folder``."""

    folder: str | None

    def spec(self, package: str) -> ModuleSpec | None:
        own = PathFinder.find_spec(package, [self.folder]) if self.folder else None
        if own is not None and own.origin is not None:
            return own
        try:
            installed = find_spec(package)
        except ValueError:  # marked as one that is not to be found
            return None
        # A folder without an __init__.py comes after whatever is installed.
        return installed or own

    def look_up(self, module: str, name: str, steps: int) -> Signature | Nowhere | None:
        file = self._file(module)
        if not isinstance(file, Path):
            return file
        try:
            text = file.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (OSError, SyntaxError, ValueError):  # in an archive, or no text
            return None
        named = _named(tree)
        if name not in named:
            if any(word in text for word in _MORE_THAN_IT_SHOWS) or not _is_plain(tree):
                return None
            return Nowhere(module=module, names=tuple(known for known in named if not known.startswith("_")))
        if len(named[name]) > 1 or not steps:
            return None
        (statement,) = named[name]
        if isinstance(statement, _Function):
            return _of_function(statement)
        if isinstance(statement, ast.ClassDef):
            return self._of_class(statement, module, steps - 1)
        if isinstance(statement, ast.ImportFrom):
            origin = _absolute(statement, module, is_package=file.name == "__init__.py")
            own = next(alias.name for alias in statement.names if name in (alias.asname, alias.name))
            return self._signature(origin, own, steps - 1)
        return None

    def _signature(self, module: str, name: str, steps: int) -> Signature | None:
        """The same of what another module names: what is not found there may be a module of its own."""
        found = self.look_up(module, name, steps)
        return found if isinstance(found, Signature) else None

    def _of_class(self, statement: ast.ClassDef, module: str, steps: int) -> Signature | None:
        own = {inner.name: inner for inner in statement.body if isinstance(inner, _Function)}
        made_otherwise = any(name in _MAKERS for inner in statement.body for name in _given_inside(inner))
        if statement.decorator_list or statement.keywords or "__new__" in own or made_otherwise:
            return None
        if "__init__" in own:
            made = _of_function(own["__init__"])
            return made and Signature(required=dict([*made.required.items()][1:]), takes_any=made.takes_any)
        if len(statement.bases) != 1 or not isinstance(statement.bases[0], ast.Name):
            return None
        return self._signature(module, statement.bases[0].id, steps)

    def _file(self, module: str) -> Path | Nowhere | None:
        """The source of a module; None where it is no plain one, or its package is not installed."""
        first, *rest = module.split(".")
        if not all(part.isidentifier() for part in (first, *rest)):
            return Nowhere(module=module, names=None)
        spec = self.spec(first)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return None
        file, folders = Path(spec.origin), [Path(folder) for folder in spec.submodule_search_locations or ()]
        for part in rest:
            found = next((place for folder in folders for place in _places(folder, part) if place.is_file()), None)
            if found is None:
                return None if _may_have(file, folders, part) else Nowhere(module=module, names=None)
            file, folders = found, [found.parent] if found.name == "__init__.py" else []
        return file


def _places(folder: Path, part: str) -> tuple[Path, Path]:
    return folder / part / "__init__.py", folder / f"{part}.py"


def _may_have(file: Path, folders: list[Path], part: str) -> bool:
    """Whether a package may have a module all the same: of another kind, or one that it makes itself."""
    other = [place for folder in folders for place in (folder / part, *folder.glob(f"{part}.*"))]
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # in an archive
        return True
    words = rf"\b({re.escape(part)}|__path__)\b"
    return any(place.exists() for place in other) or re.search(words, text) is not None


def _of_function(statement: _Function) -> Signature | None:
    if statement.decorator_list:
        return None
    arguments = statement.args
    plain = [*arguments.posonlyargs, *arguments.args]
    without_default = plain[: len(plain) - len(arguments.defaults)]
    required = {argument.arg: argument in without_default for argument in plain}
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    required |= {argument.arg: default is None for argument, default in pairs}
    return Signature(required=required, takes_any=arguments.kwarg is not None)


def _named(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """Name -> the statements of a module that give it."""
    named: dict[str, list[ast.stmt]] = {}
    for statement in _statements(tree.body):
        for name in _names(statement):
            named.setdefault(name, []).append(statement)
    return named


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those inside of others too."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.ClassDef | _Function):
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, field, []))
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body)


def _is_plain(tree: ast.Module) -> bool:
    """Whether the statements of a module give no names but those of :func:`_named`."""
    inside = not any(isinstance(node, ast.NamedExpr) for node in ast.walk(tree))
    return inside and all(isinstance(statement, _PLAIN) for statement in _statements(tree.body))


def _given_inside(statement: ast.stmt) -> Iterator[str]:
    """What a statement in the body of a class gives a name to, but for a plain method."""
    if not isinstance(statement, ast.ClassDef | _Function):
        yield from (name for inner in _statements([statement]) for name in _names(inner))


def _names(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.ClassDef | _Function):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        written = (inner for inner in ast.walk(statement) if isinstance(inner, ast.Name))
        yield from (name.id for name in written if isinstance(name.ctx, ast.Store))


def _absolute(statement: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    """The module that ``from ... import`` names, written in ``module``."""
    if not statement.level:
        return statement.module or ""
    above = module.split(".")
    above = above[: len(above) - statement.level + is_package]
    return ".".join([*above, *([statement.module] if statement.module else [])])
