"""Whether the base model is one that can be read, and has the layers that are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from skills_pipe.errors import ConfigError
from skills_pipe.pipeline.checks.finding import Finding, error
from skills_pipe.pipeline.checks.questions import Look

if TYPE_CHECKING:
    from skills_pipe.training.config import PolicyConfig
    from skills_pipe.training.config.estimate import ModelShape

_OUTPUT_LAYER = "lm_head"
_FIX = "give a folder with config.json and safetensors, or the id of a model on the hub"


def check_folder(name: str, look: Look, head: bytes | None, *, readable: bool) -> Iterator[Finding]:
    """A model that is no folder as Hugging Face's libraries write it.

    Args:
        name: path of the model as jobs see it.
        look: what is there.
        head: how its ``config.json`` begins; None if it has none.
        readable: whether that is a JSON object.
    """
    if not look.exists or readable:
        return
    if look.kind != "folder":
        fix = f"unpack it: ns convert --input_model={name}" if name.endswith(".nemo") else _FIX
        yield error(f"the model {name} is a file, not a folder", where="--hf_model", fix=fix)
    elif head is None:
        yield error(f"{name} has no config.json: it is no model of transformers", where="--hf_model", fix=_FIX)
    else:
        yield error(f"{name}/config.json is no JSON object", where="--hf_model", fix="restore it from the model")


def check_adapted_layers(policy: PolicyConfig, shape: ModelShape) -> Iterator[Finding]:
    """Adapters for layers that the model does not have."""
    # Imported here, as everywhere in the launcher: reading configurations takes longer than making a plan.
    from skills_pipe.training.config.adapters import adapter_spec

    spec = adapter_spec(policy)
    if spec is None:
        return
    try:
        spec.choose((*shape.linear_layers, _OUTPUT_LAYER))
    except ConfigError as problem:
        yield error(problem.what, where=problem.where, fix=problem.fix)
