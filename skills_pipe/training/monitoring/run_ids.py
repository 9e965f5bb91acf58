"""Under which ids the jobs of one run are known to services that track experiments."""

from __future__ import annotations

import json
import secrets
import string
from pathlib import Path

from skills_pipe.artifacts.atomic import write_json
from skills_pipe.artifacts.names import TRACKED_RUNS

_LENGTH = 21
"""What SwanLab takes; the others take anything."""


class RunIds:
    """Ids by the name of a service, kept in a folder, so that the jobs of a chain go on with one run.

    Args:
        folder: ``logger.log_dir``.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / TRACKED_RUNS

    def of(self, service: str, given: str | None = None) -> str:
        """The id that was given, else the one of the jobs before, else a new one; it is kept."""
        return self.keep(service, given or self.kept(service) or _new())

    def kept(self, service: str) -> str | None:
        """The id of the jobs before; None when there were none, or none with this service."""
        return self._read().get(service)

    def keep(self, service: str, identity: str) -> str:
        """Remember an id, and return it."""
        before = self._read()
        if before.get(service) != identity:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, before | {service: identity})
        return identity

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self._path.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return {name: value for name, value in found.items() if isinstance(value, str)}


def _new() -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(_LENGTH))
