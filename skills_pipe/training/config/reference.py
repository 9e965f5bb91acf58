"""The reference page of the configuration, docs/configuration.md, written from the schema and the packaged defaults.

python -m skills_pipe.training.config.reference > docs/configuration.md
"""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, Union

from skills_pipe.training.config.files import load_layers
from skills_pipe.training.config.read import declared
from skills_pipe.training.config.schema import TrainingConfig
from skills_pipe.training.config.schema.data import DatasetSection

_INTRODUCTION: Final = """\
# The training configuration

<!-- Written by: python -m skills_pipe.training.config.reference > docs/configuration.md -->

A training run is described by one tree of keys. It is put together from

1. the packaged defaults, `skills_pipe/training/config/sft.yaml`;
2. a YAML file, if one is given by `--config`, an option of the trainer itself: `python -m skills_pipe.training.sft`;
3. overrides, on the command line of the trainer or of `ns nemo_rl sft`; the later one wins.

`ns nemo_rl sft` takes no YAML file. There each of its keys is an override, `++policy.lr=1e-5`, and a section can be
one too, laid over what is there: `"++policy.dtensor_cfg.lora_cfg={enabled: true, dim: 16}"`. To replace what is there,
take it out first: `~policy.optimizer.kwargs "++policy.optimizer.kwargs={lr: 0.1}"`.

The layout is that of NeMo-RL's `sft.yaml`, so its files can be used as they are. Unknown keys, wrong values and
contradictions are errors, all of them reported at once; `--strict=false` lets unknown keys pass with a warning.

## Files

A file may inherit from others: `defaults: parent.yaml`, or a list of which later ones win; paths are relative to the
file. Sections are merged, lists replaced. A top-level section with `_override_: true` replaces its parents' section.
A file's own `policy.optimizer` replaces the packaged one: without an `lr` of its own it trains at `policy.lr`, with
`lr: null` at the default of its class, and `kwargs: ${...}` are left as they are. A `policy.tokenizer` without
`chat_template` means the tokenizer's own template.
Where an override names another optimizer, the packaged `kwargs` go too; what overrides give stays, `lr` is `policy.lr`,
and `weight_decay` is `policy.weight_decay` if that was set. An override that is a section with another `name`, of an
optimizer or a scheduler, replaces the `kwargs` of a file likewise.

`${policy.lr}` stands for another key, `${.name}` for a neighbour, `${mul:a,b}`, `${add:a,b}`, `${div:a,b}` and
`${max:a,b}` compute, `${oc.env:NAME}` reads an environment variable. They are resolved after all overrides.

## Overrides

| written | does |
| --- | --- |
| `key=value` | changes a key that exists |
| `+key=value` | adds a key; an error if it is set |
| `++key=value` | changes or adds |
| `~key` | removes a key |

Values are read by Hydra's grammar: `1e-5` is a number, `null` is null, `[1,2]` a list, `{a: 1}` a section. Quote
text with commas, brackets or equal signs, inside the quotes of the shell: `"++logger.wandb.name='base, second try'"`.

Overrides of two keys of one size, as `policy.tensor_model_parallel_size` and `policy.dtensor_cfg.tensor_parallel_size`,
must agree. Overrides of `policy.megatron_cfg` without that backend are named, before the queue too, with what to set
instead.

## How long a run is

`min(max_num_epochs * steps of an epoch, max_num_steps)`. A limit that is null does not count; when both are null, the
run is one epoch. What is left of the data after the last full batch of an epoch is not trained on in that epoch.
"""

_WORDS: Final[Mapping[Any, str]] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Any: "any",
}


def page() -> str:
    """The whole page as Markdown."""
    from omegaconf import OmegaConf

    defaults = OmegaConf.to_container(load_layers(None).tree, resolve=False)
    sections = [line for name in declared(TrainingConfig) for line in _section(name, defaults)]
    return "\n".join([_INTRODUCTION, *sections])


def _section(name: str, defaults: Any) -> Iterator[str]:
    hint, info = declared(TrainingConfig)[name]
    yield from (f"## {name}", "", info.doc, "")
    yield from _table(name, hint, defaults[name])


def _table(path: str, cls: type, defaults: Any) -> Iterator[str]:
    """The keys of a section as a table, then its inner sections."""
    keys = declared(cls)
    inner = {name: hint for name, (hint, _) in keys.items() if _is_section(hint)}
    yield from ("| key | value | default | |", "| --- | --- | --- | --- |")
    for name, (hint, info) in keys.items():
        if name not in inner:
            yield _row(name, _kind(hint), _default(defaults, name), info.doc)
    yield ""
    for name, hint in inner.items():
        yield from (f"### {path}.{name}", "", keys[name][1].doc, "")
        yield from _table(f"{path}.{name}", hint, defaults.get(name) if isinstance(defaults, Mapping) else None)
    if path == "data":
        yield from ("### data.train, data.validation, data.default", "", "One dataset.", "")
        yield from _table("data.train", DatasetSection, None)


def _row(*cells: str) -> str:
    name, kind, default, doc = (cell.replace("|", "\\|") for cell in cells)
    return f"| `{name}` | {kind} | {default} | {doc} |"


def _default(defaults: Any, name: str) -> str:
    if not isinstance(defaults, Mapping) or name not in defaults:
        return ""
    value = defaults[name]
    if value == "???":
        return "must be set"
    if isinstance(value, dict) and value:
        return "see sft.yaml"
    return f"`{value}`" if isinstance(value, str) and value else f"`{json.dumps(value)}`"


def _kind(hint: Any) -> str:
    """The type of a key in words."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        words = [_kind(member) for member in members] + (["null"] if len(members) < len(typing.get_args(hint)) else [])
        return " or ".join(dict.fromkeys(words))
    if typing.get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"list of {_kind(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) is not None or dataclasses.is_dataclass(hint):
        return "section"
    return _WORDS[hint]


def _is_section(hint: Any) -> bool:
    """Whether a key always holds a section with keys of its own."""
    return dataclasses.is_dataclass(hint)


if __name__ == "__main__":
    sys.stdout.write(page())
