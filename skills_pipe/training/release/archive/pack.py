"""From an exported model to one ``.nemo`` file, with its prompt template.

::

    python -m skills_pipe.training.release.archive.pack --model=results/final_hf_model \\
        --output=results/megatron_gpt_sft.nemo

The same model gives the same bytes.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.artifacts.atomic import publish_file
from skills_pipe.artifacts.names import manifest_path
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.hf_folder import LINEAGE, run_main
from skills_pipe.training.release.archive.layout import KIND, MODEL, MODEL_CONFIG, SUFFIX
from skills_pipe.training.release.archive.model_config import model_config
from skills_pipe.training.release.lineage import read_lineage
from skills_pipe.training.release.whole import check_whole

_PIECE = 8 * 1024 * 1024


def pack(model: Path, output: Path) -> Path:
    """Write the archive of an exported model and return its path.

    Raises:
        CheckpointError: the model is damaged or not finished, or ``output`` is something else.
    """
    manifest = check_whole(model)
    _check_output(output, model)
    lineage = read_lineage(model) if (model / LINEAGE).is_file() else {}
    text = yaml.dump(
        model_config(model, lineage.get("training_config", {})),
        Dumper=_OneLine,
        sort_keys=False,
        allow_unicode=True,
        width=sys.maxsize,
    )
    # The manifest comes last, as it was written.
    files = [*sorted(manifest.files), manifest_path(model).name]
    # Not compressed: weights hardly become smaller, and any part can be read where it lies.
    with publish_file(output) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.copybufsize = _PIECE
        config = text.encode()
        tar.addfile(_entry(MODEL_CONFIG, len(config)), io.BytesIO(config))
        for name in files:
            path = model / name
            with open(path, "rb") as file:
                tar.addfile(_entry(f"{MODEL}/{name}", path.stat().st_size), file)
    manifests.seal(output, kind=KIND, facts=dict(manifest.facts))
    return output


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of :func:`pack`."""
    parser = argparse.ArgumentParser(
        prog="python -m skills_pipe.training.release.archive.pack", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the exported model")
    parser.add_argument("--output", type=Path, required=True, help=f"file to write, ending in {SUFFIX}")
    given = parser.parse_args(argv)
    return run_main(lambda: print(f"packed into {pack(given.model, given.output)}"))


def _check_output(output: Path, model: Path) -> None:
    if output.suffix != SUFFIX:
        raise CheckpointError(f"{output} does not end in {SUFFIX}", where="--output", fix=f"name a {SUFFIX} file")
    if model.resolve() in output.resolve().parents:
        raise CheckpointError(
            f"{output} lies in the folder of the model", where="--output", fix="name a file outside of it"
        )
    if output.exists() and not _is_ours(output):
        raise CheckpointError(
            f"{output} exists and is no archive that this program wrote", fix="choose another file or remove it"
        )


class _OneLine(yaml.SafeDumper):
    """Writes a template as one line with ``\\n`` in it, and not over many lines with their own rules."""


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\n" in text else None)


_OneLine.add_representer(str, _string)


def _is_ours(path: Path) -> bool:
    """Whether a file is an archive by its manifest, or by its beginning: one that was not sealed any more.

    NeMo's own begin with the same name where they were packed by hand; their weights follow it, which are not ours.
    """
    manifest = manifests.read(path) if path.is_file() else None
    if manifest is not None:
        return manifest.kind == KIND
    if not (path.is_file() and tarfile.is_tarfile(path)):
        return False
    with tarfile.open(path) as tar:
        names = [entry.name for entry in (tar.next(), tar.next()) if entry is not None]
        return names[:1] == [MODEL_CONFIG] and names[1:2] != [] and names[1].startswith(f"{MODEL}/")


def _entry(name: str, size: int) -> tarfile.TarInfo:
    """A file of no owner and no time: the contents alone decide the bytes."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry


if __name__ == "__main__":
    sys.exit(main())
