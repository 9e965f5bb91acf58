"""Who writes an output: one run at a time, on record beside the output even after a crash.

The record ``.owner-<name>.json`` is made when a stage is submitted. It names the run and the identity of the stage:
a half-done output without a manifest is told by it. It stays after the run; whether the run still lives is looked up.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skills_pipe.artifacts.identity import Identity
from skills_pipe.artifacts.names import owner_path
from skills_pipe.errors import StoreError
from skills_pipe.pipeline.records.process import ProcessId


@dataclass(frozen=True, kw_only=True)
class OutputOwner:
    """The run that writes (or last wrote) an output.

    Attributes:
        run: folder of the run.
        stage: name of the stage in its plan.
        claimed_by: the process that made this record; before a submission is recorded, only this tells that it lives.
        identity: what the output is made of.
    """

    run: str
    stage: str
    claimed_by: ProcessId
    identity: Identity

    @classmethod
    def read(cls, output: Path) -> OutputOwner | None:
        """The record of an output, None when it was never claimed."""
        text = _text(owner_path(output))
        return None if text is None else cls._parse(text, owner_path(output))

    def claim(self, output: Path, *, is_live: Callable[[OutputOwner], bool]) -> None:
        """Become the owner of ``output``.

        Args:
            is_live: whether the run of an older record still works on the output.

        Raises:
            StoreError: another run does, or nothing can be written there.
        """
        path = owner_path(output)
        # The whole record appears in one step: link() fails when the name is taken, on network file systems too.
        draft = path.with_name(f".tmp-{path.name}.{self.claimed_by.host}.{self.claimed_by.pid}")
        try:
            _write(draft, json.dumps(self._to_json(), indent=2, sort_keys=True) + "\n", output)
            while True:
                with contextlib.suppress(FileExistsError):
                    os.link(draft, path)
                    return
                found = _text(path)
                if found is None:
                    continue
                other = self._parse(found, path)
                if other.run != self.run and is_live(other):
                    raise StoreError(
                        f"{output} is being written by stage {other.stage!r} of another run",
                        where=other.run,
                        fix=f"wait for it, or stop it with `ns cancel {'/'.join(Path(other.run).parts[-2:])}`",
                    )
                _take_away(path, found)
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()

    @classmethod
    def _parse(cls, text: str, path: Path) -> OutputOwner:
        try:
            value = json.loads(text)
            return cls(
                run=value["run"],
                stage=value["stage"],
                claimed_by=ProcessId.from_json(value["claimed_by"]),
                identity=Identity.from_json(value["identity"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"the record is damaged ({error})", where=str(path), fix="remove this file") from error

    def _to_json(self) -> dict[str, object]:
        return {
            "run": self.run,
            "stage": self.stage,
            "claimed_by": self.claimed_by.to_json(),
            "identity": self.identity.to_json(),
        }


def _write(draft: Path, text: str, output: Path) -> None:
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text)
    except OSError as error:
        fix = "choose another folder, or make room in it"
        raise StoreError(f"{output} cannot be written ({error.strerror})", where=str(draft.parent), fix=fix) from error


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _take_away(path: Path, dead: str) -> None:
    """Remove the record of a dead run, and only that: somebody else may have replaced it since it was read."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return
    if aside.read_text() != dead:
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()
