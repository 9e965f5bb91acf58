"""What is wrong with a class that the configuration names, in the same words before the queue and in the trainer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from skills_pipe.errors import ConfigError, did_you_mean

RATE: Final = "lr"
LENGTH: Final = "num_training_steps"
"""Argument of transformers' schedules that the trainer knows, where nobody gives it."""
REST: Final = "adamw"
"""Argument of Muon that holds those of AdamW for the weights that are no matrices inside of layers."""


def no_module(path: str, where: str) -> ConfigError:
    """The module of an import path does not exist, while its package does."""
    what = f"no module {path.rpartition('.')[0]!r} to import {path!r} from"
    return ConfigError(what, where=f"{where}.name", fix="give an import path")


def no_class(path: str, known: Iterable[str], where: str) -> ConfigError:
    """There is no such class in the module."""
    module, _, name = path.rpartition(".")
    fix = did_you_mean(name, known) or "give the import path of a class"
    return ConfigError(f"no class {name!r} in {module}", where=f"{where}.name", fix=fix)


def no_argument(path: str, key: str, known: Iterable[str], where: str) -> ConfigError:
    """The class does not know an argument."""
    fix = did_you_mean(key, known)
    if key == RATE and fix is None:  # which is there unless somebody says otherwise
        fix = f"set ++{where}.kwargs.{RATE}=null, and name its rate as it does"
    return ConfigError(f"{path} has no argument {key!r}", where=f"{where}.kwargs", fix=fix)


def no_argument_of_both(key: str, known: Iterable[str], where: str) -> ConfigError:
    """Neither Muon nor the AdamW beside it knows an argument."""
    what = f"neither Muon nor AdamW has an argument {key!r}"
    return ConfigError(what, where=f"{where}.kwargs", fix=did_you_mean(key, known))
