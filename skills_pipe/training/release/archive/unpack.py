"""From a ``.nemo`` file, or the folder that one was unpacked to, back to the exported model.

::

    python -m skills_pipe.training.release.archive.unpack --archive=megatron_gpt_sft.nemo --output=model

Every file is compared with the hashes that the model was sealed with; no other file is taken.
"""

from __future__ import annotations

import argparse
import lzma
import shutil
import sys
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.artifacts.manifest import Manifest
from skills_pipe.artifacts.names import MANIFEST
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.hf_folder import publish_model, run_main
from skills_pipe.training.release.archive.layout import MEGATRON_WEIGHTS, MODEL, MODEL_CONFIG, SUFFIX

_PIECE = 8 * 1024 * 1024
_AGAIN = "copy it again, or pack the model again"


def unpack(archive: Path, output: Path) -> Path:
    """Write the model of an archive to the folder ``output`` and return it.

    Args:
        archive: a file, compressed or not, or a folder with ``model_config.yaml``.
        output: becomes the model; an older model of ours at that place is replaced.

    Raises:
        CheckpointError: it is no archive, damaged, or holds no model that can be read here.
    """
    if not (archive.is_file() or (archive / MODEL_CONFIG).is_file()):
        raise CheckpointError(
            f"no archive lies at {archive}", fix=f"name a {SUFFIX} file, or a folder with the {MODEL_CONFIG} of one"
        )
    if output.resolve() in (archive.resolve(), *archive.resolve().parents):
        raise CheckpointError(
            f"{archive} lies where the model is to be written", where="--output", fix="name another folder"
        )
    with publish_model(output) as temporary:
        if archive.is_dir():
            _check_names({path.name for path in archive.iterdir()}, archive)
            shutil.copytree(archive / MODEL, temporary, dirs_exist_ok=True)
        else:
            with _damage_told(archive):
                _extract(archive, temporary)
        manifest = _verified(temporary, archive)
        # Sealed anew, as the output of whoever makes this folder.
        manifests.seal(temporary, kind=manifest.kind, facts=manifest.facts, hashed=manifest.files)
    return output


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of :func:`unpack`."""
    parser = argparse.ArgumentParser(
        prog="python -m skills_pipe.training.release.archive.unpack", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--archive", type=Path, required=True, help=f"{SUFFIX} file, or the folder of one")
    parser.add_argument("--output", type=Path, required=True, help="folder to write the model to")
    given = parser.parse_args(argv)
    return run_main(lambda: print(f"unpacked into {unpack(given.archive, given.output)}"))


def _extract(archive: Path, folder: Path) -> None:
    """Write the files below ``hf_model`` into ``folder``; nothing that an archive holds can lead out of it."""
    seen = set()
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            if member.name.startswith("/") or ".." in parts or not (member.isfile() or member.isdir()):
                raise CheckpointError(
                    f"{archive} holds {member.name!r}, which no archive of a model has", fix="pack the model again"
                )
            seen.add(parts[0] if parts else "")
            content = tar.extractfile(member)
            if len(parts) < 2 or parts[0] != MODEL or content is None:
                continue
            path = folder.joinpath(*parts[1:])
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                shutil.copyfileobj(content, file, _PIECE)
    _check_names(seen, archive)


def _check_names(names: set[str], archive: Path) -> None:
    """Whether an archive with these names at its top holds a model that can be read here."""
    if MODEL in names:
        return
    if names & set(MEGATRON_WEIGHTS):
        raise CheckpointError(
            f"{archive} holds weights in Megatron's layout, and no {MODEL}",
            fix="make a Hugging Face model of it with NeMo's converter for its family, and name that",
        )
    raise CheckpointError(f"{archive} holds no {MODEL}", fix="pack an exported model")


def _verified(folder: Path, archive: Path) -> Manifest:
    manifest = manifests.read(folder)
    if manifest is None:
        raise CheckpointError(f"the {MODEL} of {archive} was never finished", fix="pack an exported model")
    for name in manifest.files:
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise CheckpointError(f"{archive} names a file outside of itself, {name!r}", fix=_AGAIN)
    damaged = [line.replace(f"{folder}/", "") for line in manifests.damage(folder, manifest)]
    # Sealed anew, such files would be taken for files of the model, and go where it goes.
    damaged += [f"{name}: not of the model" for name in sorted(_files(folder) - {*manifest.files, MANIFEST})]
    if damaged:
        raise CheckpointError(f"{archive} is damaged: {'; '.join(damaged)}", fix=_AGAIN)
    return manifest


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


@contextmanager
def _damage_told(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{archive} cannot be read as an archive: {reason}", fix=_AGAIN) from error


if __name__ == "__main__":
    sys.exit(main())
