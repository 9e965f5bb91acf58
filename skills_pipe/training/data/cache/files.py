"""A data set as files that are written part by part and mapped into memory: 3 bytes a token for small vocabularies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from skills_pipe.artifacts.atomic import write_json
from skills_pipe.artifacts.names import MANIFEST
from skills_pipe.training.data.chunk import EncodedChunk
from skills_pipe.training.data.dataset import Fingerprint, SftDataset, count_targets
from skills_pipe.training.data.report import DataReport

FORMAT: Final = 1
_KIND: Final = "tokenised_data"
_COPIED: Final = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the manifest says of the files; it is written last.

    Attributes:
        documents, tokens: how many.
        id_type, mask_type: dtypes of the files.
        fingerprint: see :attr:`dataset.SftDataset.fingerprint`.
    """

    documents: int
    tokens: int
    id_type: str
    mask_type: str
    fingerprint: str


class DocumentWriter:
    """Appends documents to the files of a folder; memory does not grow with their number.

    Args:
        folder: an empty folder.
        vocabulary: ids are below this number; up to 2^16 an id takes two bytes, else four.
    """

    def __init__(self, folder: Path, vocabulary: int) -> None:
        self._folder = folder
        self._id_type = np.dtype("<u2" if vocabulary <= 2**16 else "<u4")
        self._mask_type: np.dtype[Any] = np.dtype("u1")
        self._fingerprint = Fingerprint()
        self.documents = 0
        self.tokens = 0
        self.targets = 0
        with ExitStack() as stack:
            self._ids, self._offsets, self._targets, self._mask = (
                stack.enter_context(open(folder / name, "wb")) for name in (_IDS, _OFFSETS, _TARGETS, _MASK)
            )
            self._files = stack.pop_all()
        self._offsets.write(np.zeros(1, "<i8").tobytes())

    def __enter__(self) -> DocumentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def add(self, chunk: EncodedChunk) -> None:
        """Append the documents of a chunk."""
        ends = np.cumsum(chunk.lengths)
        targets = count_targets(chunk.loss_mask, np.concatenate([[0], ends]))
        if chunk.loss_mask.dtype != np.uint8 and self._mask_type == np.uint8:
            self._widen_mask()
        self._ids.write(chunk.token_ids.astype(self._id_type).tobytes())
        self._mask.write(chunk.loss_mask.astype(self._mask_type).tobytes())
        self._offsets.write((ends + self.tokens).astype("<i8").tobytes())
        self._targets.write(targets.astype("<i4").tobytes())
        self._fingerprint.add_tokens(chunk.token_ids, chunk.loss_mask)
        self._fingerprint.add_lengths(chunk.lengths)
        self.documents += len(chunk.lengths)
        self.tokens += len(chunk.token_ids)
        self.targets += int(targets.sum())

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document so far."""
        self._offsets.flush()
        return np.diff(np.fromfile(self._folder / _OFFSETS, dtype="<i8"))

    def seal(self, report: DataReport, facts: Mapping[str, Any]) -> None:
        """Close the files and write the manifest; ``facts`` tell people what the data were made from."""
        self._files.close()
        described = Description(
            documents=self.documents,
            tokens=self.tokens,
            id_type=self._id_type.str,
            mask_type=self._mask_type.str,
            fingerprint=self._fingerprint.hexdigest(),
        )
        manifest = {"format": FORMAT, "kind": _KIND, "contents": asdict(described), "report": report.to_json()}
        write_json(self._folder / MANIFEST, manifest | {"made_from": dict(facts)})

    def _widen_mask(self) -> None:
        """Weights have come: rewrite the 0 and 1 so far as numbers of four bytes."""
        self._mask.close()
        narrow = self._folder / f"narrow-{_MASK}"
        (self._folder / _MASK).rename(narrow)
        self._mask_type = np.dtype("<f4")
        self._mask = self._files.enter_context(open(self._folder / _MASK, "wb"))  # noqa: SIM115
        with open(narrow, "rb") as before:
            while part := before.read(_COPIED):
                self._mask.write(np.frombuffer(part, np.uint8).astype("<f4").tobytes())
        narrow.unlink()


def open_documents(folder: Path) -> SftDataset | None:
    """The data set of a folder, mapped into memory; None where there is none, or its files are not whole."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or manifest["kind"] != _KIND:
            return None
        described = Description(**manifest["contents"])
        report = DataReport.from_json(manifest["report"])
        shapes = {
            _IDS: (described.id_type, described.tokens),
            _MASK: (described.mask_type, described.tokens),
            _OFFSETS: ("<i8", described.documents + 1),
            _TARGETS: ("<i4", described.documents),
        }
        if any((folder / name).stat().st_size != np.dtype(kind).itemsize * n for name, (kind, n) in shapes.items()):
            return None
        arrays = {name: np.memmap(folder / name, kind, "r", shape=(n,)) for name, (kind, n) in shapes.items()}
    except (OSError, ValueError, KeyError, TypeError):
        # Whatever is not as it was written is made again.
        return None
    return SftDataset(
        arrays[_IDS],
        arrays[_MASK],
        arrays[_OFFSETS],
        report,
        targets=arrays[_TARGETS],
        fingerprint=described.fingerprint,
    )


_IDS: Final = "token_ids.bin"
_MASK: Final = "loss_mask.bin"
_OFFSETS: Final = "offsets.bin"
_TARGETS: Final = "targets.bin"
