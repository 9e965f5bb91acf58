"""Whether the base model is one that can be read, and has the layers that are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skills_pipe.errors import ConfigError
from skills_pipe.pipeline.checks.asking import CONFIG
from skills_pipe.pipeline.checks.finding import Finding, error, warning
from skills_pipe.pipeline.checks.questions import HEAD_BYTES, Look
from skills_pipe.pipeline.checks.request import Request

if TYPE_CHECKING:
    from skills_pipe.training.config import PolicyConfig
    from skills_pipe.training.config.estimate import ModelShape

_FLAG = "--hf_model"
_ARCHIVE = ".nemo"
_OUTPUT_LAYER = "lm_head"
_FIX = "give a folder with config.json and safetensors, or the id of a model on the hub"


def check_archive(request: Request[Any], name: str) -> Iterator[Finding]:
    """A model that is packed into one file.

    Its name alone tells where nobody can look: ``folder/model.nemo`` may be a path as well as an id on the hub, where
    no model is called so.
    """
    if name.endswith(_ARCHIVE) and not _is_folder(request, name):
        fix = f"unpack it, and give the folder that this makes: ns convert --input_model={name} --output_model=FOLDER"
        yield error(f"the model {name} is an archive, not a folder", where=_FLAG, fix=fix)


def _is_folder(request: Request[Any], name: str) -> bool:
    seen = request.look(name)
    if seen is not None:
        return seen.kind == "folder"
    # Names that may be ids are paths from the folder in which jobs of this machine start.
    return request.cluster.is_local and Path(request.cluster.absolute(name)).is_dir()


def check_folder(request: Request[Any], name: str, folder: Look) -> Iterator[Finding]:
    """A model that is no folder as Hugging Face's libraries write it.

    On a cluster these are warnings: jobs may see through mounts what is a dangling link where one looks from.

    Args:
        request: may look at files.
        name: path of the model as jobs see it.
        folder: what is there.
    """
    tell = error if request.cluster.is_local else warning
    config = request.look(f"{name}{CONFIG}")
    if folder.kind == "file":
        if not name.endswith(_ARCHIVE):  # told by check_archive
            yield tell(f"the model {name} is a file, not a folder", where=_FLAG, fix=_FIX)
    elif folder.kind == "folder" and config is not None and not config.exists:
        yield tell(f"{name} has no config.json: it is no model of transformers", where=_FLAG, fix=_FIX)
    elif config is not None and config.exists and not config.readable:
        yield tell(f"{name}{CONFIG} may not be read", where=_FLAG, fix="see to its permissions")
    elif _is_whole(head := request.head(f"{name}{CONFIG}")) and request.model_config(name) is None:
        what = "is empty" if not head else "is no JSON object"
        yield tell(f"{name}{CONFIG} {what}", where=_FLAG, fix="restore it from the model")


def _is_whole(head: bytes | None) -> bool:
    """Whether all of a file was read."""
    return head is not None and len(head) < HEAD_BYTES


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
