"""Configuration nodes (``_target_`` and keywords) -> processors; wrong keywords are found before any work starts."""

from __future__ import annotations

import importlib
import logging
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from skills_pipe.errors import ConfigError, UserError, did_you_mean
from skills_pipe.training.prepare import arithmetic, edits, filters, group, merge, read, write
from skills_pipe.training.prepare.external import ExternalProcessor
from skills_pipe.training.prepare.processor import Processor

_LOG = logging.getLogger(__name__)

OURS: dict[str, type[Processor]] = {
    cls.__name__: cls
    for cls in (
        read.ReadData,
        merge.MergeProcessor,
        filters.DropMultiBoxed,
        filters.DropIncorrectCodeBlocks,
        filters.DropIfRegexMatch,
        filters.DropIfRegexNotMatch,
        filters.DropIfEqual,
        filters.MajorityFilter,
        filters.RemoveContaminated,
        filters.RemoveLenOutliers,
        edits.TrimPrefix,
        edits.TrimSolutions,
        edits.AddCodeExecutionsCounts,
        edits.RenameFields,
        arithmetic.DropIncorrectArithmetic,
        arithmetic.SplitArithmetic,
        group.GroupSamples,
        group.CodeTextFilter,
        group.ShuffleAndDownsampleData,
        write.WriteFinalSftManifest,
        write.WriteFinalRLManifest,
    )
}

_REPLACED_PACKAGES = ("nemo_skills.training.data_preparation_utils.", "sdp.processors.")
"""A configuration that names a processor of these packages gets ours of the same name, if there is one."""

_HYDRA_KEYS = {"_target_", "_recursive_", "_convert_", "should_run"}
_SCHEDULING_KEYS = {"max_workers", "chunksize", "in_memory_chunksize", "use_dask"}
"""How other programs spread the work of a processor; it has no bearing on the result."""


def build(node: Mapping[str, Any], *, where: str, problems: list[UserError]) -> Processor | None:
    """The processor that a node describes; None when it cannot be built, the reasons added to ``problems``.

    Args:
        node: ``_target_``, keywords, and perhaps ``should_run``, which has been looked at before.
        where: position of the node in the configuration, for messages.
        problems: collects what is wrong, so that all of it can be shown at once.
    """
    target = node.get("_target_")
    if not isinstance(target, str):
        problems.append(ConfigError("a processor needs a _target_, the path of its class", where=where))
        return None
    try:
        cls = find_class(target)
    except ConfigError as error:
        problems.append(ConfigError(error.what, where=f"{where}._target_", fix=error.fix))
        return None
    arguments = {key: value for key, value in node.items() if key not in _HYDRA_KEYS}
    where = f"{where} ({cls.__name__})"
    try:
        if not issubclass(cls, Processor):
            files = {key: arguments.pop(key, None) for key in ("input_manifest_file", "output_manifest_file")}
            return ExternalProcessor(target=cls, arguments=arguments, **files)
        for key in sorted(_SCHEDULING_KEYS & arguments.keys() - {option.name for option in fields(cls)}):
            _LOG.warning("%s of %s has no effect: rows stream through one process", key, where)
            del arguments[key]
        found = _check_arguments(cls, arguments, where=where)
        if cls is merge.MergeProcessor and not found:
            arguments["processor_configs"] = _build_all(arguments.get("processor_configs", []), where, found)
        if found:
            problems.extend(found)
            return None
        return cls(**arguments)
    except UserError as error:
        problems.append(error)
        return None


def find_class(target: str) -> type:
    """The class at a dotted path.

    Raises:
        ConfigError: there is none; names the closest of ours.
    """
    module, _, name = target.rpartition(".")
    if name in OURS and (target.startswith(_REPLACED_PACKAGES) or module == OURS[name].__module__):
        return OURS[name]
    unknown = ConfigError(
        f"there is no processor {target}", fix=did_you_mean(name, OURS) or f"use one of {', '.join(OURS)}"
    )
    if not module or target.startswith(_REPLACED_PACKAGES[0]):
        raise unknown
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise unknown from error
    if not isinstance(found, type):
        raise unknown
    return found


def _build_all(nodes: list[Mapping[str, Any]], where: str, problems: list[UserError]) -> list[Processor]:
    built = [
        build(node, where=f"{where}.processor_configs.{index}", problems=problems)
        for index, node in enumerate(nodes)
        if node.get("should_run", True)
    ]
    return [processor for processor in built if processor is not None]


def _check_arguments(cls: type[Processor], arguments: Mapping[str, Any], *, where: str) -> list[UserError]:
    """Unknown, missing and mistyped keywords of a processor."""
    options = {option.name: option for option in fields(cls) if option.init}
    hints = typing.get_type_hints(cls)
    found: list[UserError] = []
    for key, value in arguments.items():
        if key not in options:
            fix = did_you_mean(key, options) or f"it takes {', '.join(options)}"
            found.append(ConfigError(f"unknown key {key!r}", where=where, fix=fix))
        elif cls is not merge.MergeProcessor and not _fits(value, hints[key]):
            wanted = str(hints[key]).removeprefix("<class '").removesuffix("'>")
            found.append(ConfigError(f"{key} is {value!r}, but must be {wanted}", where=where))
    for key, option in options.items():
        if key not in arguments and option.default is MISSING and option.default_factory is MISSING:
            found.append(ConfigError(f"{key} is not set", where=where))
    return found


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value has the type of a field; an integer passes for a float."""
    if hint is Any:
        return True
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is list:
        return isinstance(value, list) and all(_fits(item, typing.get_args(hint)[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, typing.get_args(hint)[1]) for item in value.values())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
