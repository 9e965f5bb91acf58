"""From a checkpoint to a Hugging Face model folder.

::

    python -m skills_pipe.training.checkpoint.export --training_folder=results --hf_ckpt_path=results/final_hf_model

The weights pass through tensor by tensor, in pieces of a few megabytes, so memory does not grow with the model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.artifacts.atomic import write_json
from skills_pipe.artifacts.manifest import Manifest
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.adapter import AdapterRecord
from skills_pipe.training.checkpoint.best import best_step
from skills_pipe.training.checkpoint.expert_matrices import FAMILIES as EXPERT_FAMILIES
from skills_pipe.training.checkpoint.expert_matrices import ExpertMatrices, Weights
from skills_pipe.training.checkpoint.hf_folder import ADAPTER, KIND, LINEAGE, publish_model, run_main, size_in_bytes
from skills_pipe.training.checkpoint.layout import StepFolder, find_checkpoints, step_folders, whole_steps
from skills_pipe.training.checkpoint.merged_weights import MergedWeights, base_tensors
from skills_pipe.training.checkpoint.peft_folder import write_peft_folder
from skills_pipe.training.checkpoint.resume import check_files
from skills_pipe.training.checkpoint.retention import names
from skills_pipe.training.checkpoint.safetensors_file import PIECE, Tensor, with_dtype, write_model
from skills_pipe.training.checkpoint.stored_weights import StoredWeights
from skills_pipe.training.release.archive.layout import is_archive
from skills_pipe.training.release.archive.unpack import unpack
from skills_pipe.training.release.lineage import Lineage
from skills_pipe.training.release.model_card import metrics_files, write_card

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_FOR_TRAINING = ("policy/optimizer/", "rng/", "policy/scheduler")
"""What of a checkpoint no model is made of."""

_SHARD = ".distcp"
"""Files with this ending hold the weights; all others say where in them."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """What to export.

    Attributes:
        training_folder: output folder of a training, or its ``checkpoints``; or an archive, whose model it is then.
        output: the folder to make.
        step: ``last``, ``best`` (by the run's ``checkpointing.metric_name``) or a number.
        dtype: key of :data:`DTYPES`; None for the precision that the run trained in.
        max_shard_size: bytes of a weight file.
        ema: the moving average of the weights, in their place.
        adapter_only: of a training of adapters the adapters alone, as a PEFT folder.
        base_model: where the base model of adapters lies now; None: where it was in training.
    """

    training_folder: Path
    output: Path
    step: str = "last"
    dtype: str | None = None
    max_shard_size: int = 5 * 10**9
    ema: bool = False
    adapter_only: bool = False
    base_model: str | None = None


def export(wanted: Export) -> Path:
    """Write the Hugging Face model of one checkpoint, or of an archive, and return its folder.

    Raises:
        CheckpointError: the step does not exist or is damaged, or the output is something else.
    """
    if is_archive(wanted.training_folder):
        return unpack(wanted.training_folder, wanted.output)
    path, manifest = find_step(find_checkpoints(wanted.training_folder), wanted.step)
    step = StepFolder(path)
    stored = _weights(step, ema=wanted.ema)
    small, shards = _what_is_read(manifest, ema=wanted.ema)
    check_files(path, small)
    name = wanted.dtype or manifest.facts["precision"]
    record = AdapterRecord.read(manifest)
    if wanted.adapter_only:
        check_files(path, shards)
        return _export_adapter(wanted, step, manifest, StoredWeights(stored))
    weights = _model_weights(step, StoredWeights(stored), record, wanted.base_model)
    tensors = [with_dtype(tensor, DTYPES[name]) for tensor in weights.tensors.values()]

    # One buffer for all pieces: a new one for each would fragment the heap.
    buffer = torch.empty(PIECE // DTYPES[name].itemsize, dtype=DTYPES[name])

    def produce(tensor: Tensor) -> Iterator[torch.Tensor]:
        for piece in weights.pieces(tensor.name):
            yield from (piece,) if piece.dtype == tensor.dtype else _into(buffer, piece)

    with publish_model(wanted.output) as folder, _checked_meanwhile(path, shards):
        records = write_model(folder, tensors, produce, max_shard_size=wanted.max_shard_size)
        _write_side_files(folder, step, dtype=name)
        if record is not None:
            (folder / ADAPTER).mkdir()
            written = write_peft_folder(folder / ADAPTER, StoredWeights(stored), record)
            records |= {f"{ADAPTER}/{file}": found for file, found in written.items()}
        _tell_origin(folder, wanted, Lineage.of(step, manifest, dtype=name, ema=wanted.ema))
        facts = {"step": manifest.facts["step"], "dtype": name}
        manifests.seal(folder, kind=KIND, facts=facts, hashed=records)
    return wanted.output


def find_step(folder: Path, wanted: str) -> tuple[Path, Manifest]:
    """The checkpoint that ``last``, ``best`` or a number means.

    Raises:
        CheckpointError: there is none; says which exist.
    """
    whole = {step: (path, manifest) for step, path, manifest in whole_steps(folder)}
    if not whole:
        raise CheckpointError(
            f"no checkpoint in {folder} is whole ({names(list(step_folders(folder)))} unfinished)",
            fix="let the training save once more",
        )
    if wanted == "last":
        return whole[max(whole)]
    if wanted == "best":
        return whole[best_step(whole)]
    step = int(wanted) if wanted.isdecimal() else None
    if step not in whole:
        raise CheckpointError(
            f"no whole checkpoint of step {wanted!r} in {folder}",
            where="--step",
            fix=f"choose last, best or one of {', '.join(str(step) for step in whole)}",
        )
    return whole[step]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of :func:`export`."""
    parser = argparse.ArgumentParser(
        prog="python -m skills_pipe.training.checkpoint.export", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--training_folder", type=Path, required=True, help="output folder of the training, or a .nemo archive"
    )
    parser.add_argument("--hf_ckpt_path", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--step", default="last", help="last (default), best, or the number of a step")
    parser.add_argument("--dtype", choices=DTYPES, help="dtype of the weights (default: policy.precision)")
    parser.add_argument("--max_shard_size", type=size_in_bytes, default="5GB", help="largest weight file, as 5GB")
    parser.add_argument(
        "--ema", action="store_true", help="the moving average that sft.ema_decay keeps, not the weights"
    )
    parser.add_argument(
        "--adapter_only", action="store_true", help="of a training of adapters a PEFT folder, without the base model"
    )
    parser.add_argument("--base_model", help="where the base model of adapters lies, if not where it was in training")
    given = parser.parse_args(argv)
    wanted = Export(
        training_folder=given.training_folder,
        output=given.hf_ckpt_path,
        step=given.step,
        dtype=given.dtype,
        max_shard_size=given.max_shard_size,
        ema=given.ema,
        adapter_only=given.adapter_only,
        base_model=given.base_model,
    )
    return run_main(lambda: print(f"exported to {export(wanted)}"))


def _what_is_read(manifest: Manifest, *, ema: bool) -> tuple[Manifest, Manifest]:
    """Of a checkpoint's files those that an export reads: small ones, and shards of weights."""
    unread = (*_FOR_TRAINING, "policy/weights/" if ema else "policy/ema/")
    read = {name: record for name, record in manifest.files.items() if not name.startswith(unread)}
    shards = {name: read.pop(name) for name in list(read) if name.endswith(_SHARD)}
    return Manifest(kind=manifest.kind, files=read), Manifest(kind=manifest.kind, files=shards)


@contextmanager
def _checked_meanwhile(path: Path, files: Manifest) -> Iterator[None]:
    """Hash files of a checkpoint while the block reads them: each takes as long as the other.

    Raises:
        CheckpointError: they are damaged; raised instead of what the block stumbled over.
    """
    checked: Future[None] = Future()

    def check() -> None:
        try:
            checked.set_result(check_files(path, files))
        except BaseException as error:  # raised where it is waited for
            checked.set_exception(error)

    # Who interrupts the block does not wait for it either.
    threading.Thread(target=check, name="checksums", daemon=True).start()
    try:
        yield
    except Exception:
        checked.result()
        raise
    checked.result()


def _model_weights(
    step: StepFolder, stored: StoredWeights, record: AdapterRecord | None, base_model: str | None
) -> Weights:
    """The weights of the whole model: those of the checkpoint, or the base model with its adapters merged."""
    if record is not None:
        return MergedWeights(base_tensors(record, base_model), stored, record)
    family = json.loads((step.model / "config.json").read_text()).get("model_type")
    return ExpertMatrices(stored) if family in EXPERT_FAMILIES else stored


def _export_adapter(wanted: Export, step: StepFolder, manifest: Manifest, stored: StoredWeights) -> Path:
    record = AdapterRecord.read(manifest)
    if record is None:
        raise CheckpointError(
            f"{step.path.name} holds all weights, and no adapters",
            where="--adapter_only",
            fix="leave it out: what is exported is the whole model",
        )
    with publish_model(wanted.output) as folder:
        records = write_peft_folder(folder, stored, record)
        if step.tokenizer.is_dir():
            shutil.copytree(step.tokenizer, folder, dirs_exist_ok=True)
        _tell_origin(folder, wanted, Lineage.of(step, manifest, dtype="float32", ema=wanted.ema))
        facts = {"step": manifest.facts["step"], "dtype": "float32"}
        manifests.seal(folder, kind=KIND, facts=facts, hashed=records)
    return wanted.output


def _tell_origin(folder: Path, wanted: Export, lineage: Lineage) -> None:
    """Write what the model was made of: for programs, and for readers."""
    write_json(folder / LINEAGE, lineage.to_json())
    write_card(folder, lineage, metrics_files(lineage, wanted.training_folder))


def _into(buffer: torch.Tensor, piece: torch.Tensor) -> Iterator[torch.Tensor]:
    """The piece in the buffer's dtype, in parts that the buffer can hold."""
    for part in piece.split(len(buffer)):
        yield buffer[: len(part)].copy_(part)


def _weights(step: StepFolder, *, ema: bool) -> Path:
    if ema and not step.average.is_dir():
        raise CheckpointError(
            f"{step.path.name} has no average of the weights",
            where="--ema",
            fix="export the weights, or train with sft.ema_decay",
        )
    return step.average if ema else step.weights


def _write_side_files(folder: Path, step: StepFolder, *, dtype: str) -> None:
    for source in (step.model, step.tokenizer):
        if source.is_dir():
            shutil.copytree(source, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    # Training turns the cache off; whoever generates with the model wants it.
    write_json(folder / "config.json", config | {"dtype": dtype, "use_cache": True})


if __name__ == "__main__":
    sys.exit(main())
