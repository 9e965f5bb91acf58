"""The mean of several exported checkpoints as one model.

::

    python -m skills_pipe.training.checkpoint.average --checkpoint_dir=results --steps=100,200,300 \\
        --output=results/final_hf_model

Values are summed in fp32 in ascending order of steps, divided by their number and cast back, piece by piece.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.artifacts.atomic import write_json
from skills_pipe.artifacts.names import LOSS_PICTURE, MANIFEST, hf_model_step
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.hf_folder import ADAPTER, KIND, LINEAGE, publish_model, run_main, size_in_bytes
from skills_pipe.training.checkpoint.safetensors_file import (
    INDEX,
    PIECE,
    Tensor,
    read_pieces,
    read_tensors,
    write_model,
)
from skills_pipe.training.release.model_card import CARD, average_card


@dataclass(frozen=True, kw_only=True)
class Average:
    """What to average.

    Attributes:
        folder: holds ``hf_model_step_N`` for every step.
        steps: which; their order does not matter.
        output: the folder to make.
        remove: delete the averaged folders once the result is in place.
        max_shard_size: bytes of a weight file.
    """

    folder: Path
    steps: tuple[int, ...]
    output: Path
    remove: bool = False
    max_shard_size: int = 5 * 10**9


def average(wanted: Average) -> Path:
    """Write the averaged model and return its folder; nothing is written before all checks have passed.

    Raises:
        CheckpointError: a step is missing or unfinished, the models do not have the same tensors, or one of them lies
            where the result should.
    """
    steps = tuple(sorted(wanted.steps))
    folders = [wanted.folder / hf_model_step(step) for step in steps]
    _check_output(wanted.output, folders)
    if wanted.remove and _only_removal_is_left(wanted.output, folders):
        _remove(folders)
        return wanted.output
    _check_folders(wanted, folders)
    models = [read_tensors(folder) for folder in folders]
    _check_tensors(folders, models)

    mean = _Mean(len(models))

    def produce(tensor: Tensor) -> Iterator[torch.Tensor]:
        return mean.of([model[tensor.name] for model in models])

    label = ",".join(str(step) for step in steps)
    with publish_model(wanted.output) as temporary:
        records = write_model(
            temporary,
            models[-1].values(),
            produce,
            max_shard_size=wanted.max_shard_size,
            metadata={"averaged_from": label},
        )
        _copy_side_files(folders[-1], temporary)
        lineages = {path.name: _lineage(path) for path in folders}
        write_json(temporary / LINEAGE, {"averaged_from": lineages})
        (temporary / CARD).write_text(average_card(lineages), encoding="utf-8")
        facts = {"averaged_from": list(steps), "sources": {path.name: _digest(path) for path in folders}}
        manifests.seal(temporary, kind=KIND, facts=facts, hashed=records)
    if wanted.remove:
        _remove(folders)
    return wanted.output


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of :func:`average`."""
    parser = argparse.ArgumentParser(
        prog="python -m skills_pipe.training.checkpoint.average", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--checkpoint_dir", type=Path, required=True, help="folder that holds hf_model_step_N")
    parser.add_argument("--steps", type=_steps, required=True, help="steps to average, as 100,200,300")
    parser.add_argument("--output", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--remove", action="store_true", help="delete the averaged hf_model_step folders afterwards")
    parser.add_argument("--max_shard_size", type=size_in_bytes, default="5GB", help="largest weight file, as 5GB")
    given = parser.parse_args(argv)
    wanted = Average(
        folder=given.checkpoint_dir,
        steps=given.steps,
        output=given.output,
        remove=given.remove,
        max_shard_size=given.max_shard_size,
    )
    return run_main(lambda: print(f"averaged into {average(wanted)}"))


def _steps(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of steps: write it as 100,200,300")
    steps = tuple(int(part) for part in parts)
    if len(set(steps)) < len(steps):
        raise argparse.ArgumentTypeError(f"{text!r} names a step twice")
    return steps


def _check_output(output: Path, folders: Sequence[Path]) -> None:
    if output.resolve() in [folder.resolve() for folder in folders]:
        raise CheckpointError(
            f"{output} is one of the models to average", where="--output", fix="choose another folder for the result"
        )


def _check_folders(wanted: Average, folders: Sequence[Path]) -> None:
    found = []
    for folder in folders:
        manifest = manifests.read(folder) if folder.is_dir() else None
        if not folder.is_dir():
            found.append(f"{folder.name} is missing")
        elif manifest is None:
            found.append(f"{folder.name} is unfinished: it has no {MANIFEST}")
        else:
            found += manifests.damage(folder, manifest, hashes=False)
    if not found:
        return
    present = sorted(path.name for path in wanted.folder.glob("hf_model_step_*") if path.is_dir())
    raise CheckpointError(
        "; ".join(found),
        where=f"{wanted.folder}, which holds {', '.join(present) or 'no hf_model_step_N'}",
        fix="export these steps first, or average others",
    )


def _check_tensors(folders: Sequence[Path], models: Sequence[dict[str, Tensor]]) -> None:
    """Every model has the same names, shapes and dtypes; all differences are named."""
    found = []
    for folder, model in zip(folders[1:], models[1:], strict=True):
        found += [f"{name} only in {folders[0].name}" for name in models[0] if name not in model]
        found += [f"{name} only in {folder.name}" for name in model if name not in models[0]]
        for name in models[0].keys() & model.keys():
            one, other = models[0][name], model[name]
            if one.shape != other.shape:
                found.append(f"{name} has shape {one.shape} in {folders[0].name} and {other.shape} in {folder.name}")
            elif one.dtype != other.dtype:
                found.append(f"{name} is {one.dtype} in {folders[0].name} and {other.dtype} in {folder.name}")
            elif not one.dtype.is_floating_point and not _equal(one, other):
                found.append(f"{name} holds integers that differ between {folders[0].name} and {folder.name}")
    if found:
        rest = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise CheckpointError(
            f"the models cannot be averaged: {'; '.join(sorted(found)[:5])}{rest}",
            where=str(folders[0].parent),
            fix="average checkpoints of one run, exported alike",
        )


def _equal(one: Tensor, other: Tensor) -> bool:
    return all(torch.equal(a, b) for a, b in zip(read_pieces(one), read_pieces(other), strict=True))


class _Mean:
    """Averages tensors one after the other in the same few buffers: new ones for each would fragment the heap."""

    def __init__(self, models: int) -> None:
        self._read = [bytearray(PIECE) for _ in range(models)]
        # A piece of a 16-bit type takes twice its bytes while it is summed.
        self._sum = torch.empty(2 * PIECE, dtype=torch.uint8)
        self._next = torch.empty(2 * PIECE, dtype=torch.uint8)
        self._rounded = torch.empty(PIECE, dtype=torch.uint8)

    def of(self, copies: Sequence[Tensor]) -> Iterator[torch.Tensor]:
        """The mean of one tensor over the models; integers, which are equal, as they are."""
        dtype = copies[0].dtype
        if not dtype.is_floating_point:
            yield from read_pieces(copies[0], self._read[0])
            return
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        readers = (read_pieces(copy, buffer) for copy, buffer in zip(copies, self._read, strict=True))
        for pieces in zip(*readers, strict=True):
            total = self._sum.view(wide)[: len(pieces[0])].copy_(pieces[0])
            for piece in pieces[1:]:
                # Widened into a buffer first: an addition of two dtypes would make a copy by itself.
                total.add_(self._next.view(wide)[: len(piece)].copy_(piece))
            total.div_(len(copies))
            yield total if wide == dtype else self._rounded.view(dtype)[: len(total)].copy_(total)


def _copy_side_files(source: Path, target: Path) -> None:
    """Configuration, tokenizer, chat template, generation settings: everything but weights and records.

    Nor adapters, card and loss curve: those of one step are not the average.
    """
    for entry in sorted(source.iterdir()):
        if entry.name in (MANIFEST, LINEAGE, INDEX, ADAPTER, CARD, LOSS_PICTURE) or entry.suffix == ".safetensors":
            continue
        if entry.is_dir():
            shutil.copytree(entry, target / entry.name)
        else:
            shutil.copy2(entry, target / entry.name)


def _lineage(folder: Path) -> object:
    path = folder / LINEAGE
    return json.loads(path.read_text()) if path.is_file() else None


def _digest(folder: Path) -> str | None:
    manifest = manifests.read(folder)
    return manifest.digest if manifest else None


def _only_removal_is_left(output: Path, folders: Sequence[Path]) -> bool:
    """Whether an earlier call made ``output`` of these very models and was stopped while it removed them."""
    manifest = manifests.read(output)
    if manifest is None:
        return False
    made_of = manifest.facts.get("sources", {})
    left = {path.name: _digest(path) for path in folders}
    same = made_of.keys() == left.keys() and all(found in (None, made_of[name]) for name, found in left.items())
    return same and None in left.values() and not manifests.damage(output, manifest)


def _remove(folders: Sequence[Path]) -> None:
    for folder in folders:
        # The manifest first: a removal cut short must not leave a folder that looks whole.
        (folder / MANIFEST).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
