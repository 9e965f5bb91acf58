"""What outputs were made of, and what that was made of in turn: from the manifests that lie beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skills_pipe.artifacts import manifest
from skills_pipe.artifacts.identity import Identity
from skills_pipe.artifacts.manifest import Manifest
from skills_pipe.errors import CheckpointError
from skills_pipe.pipeline.site.site import Facts, Site, Want

_DEEPEST = 8
"""Generations that are followed: each is one more look at the cluster."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Something on disk, or on the hub, and what is known of how it came to be.

    Attributes:
        path: as jobs see it.
        fingerprint: as it was when it was read; empty for an output that is looked at itself.
        manifest: None where there is none: nobody has sealed it.
        inputs: what its maker has read, by path.
    """

    path: str
    fingerprint: str = ""
    manifest: Manifest | None = None
    inputs: tuple[Origin, ...] = field(default=())

    @property
    def identity(self) -> Identity | None:
        """The identity of the stage that made it."""
        return self.manifest.identity if self.manifest else None

    @property
    def size(self) -> int:
        """Bytes of its files; those of folders in it that are sealed by themselves are not counted."""
        return sum(record.size for record in self.manifest.files.values()) if self.manifest else 0


class Lineage:
    """Reads manifests of a cluster, each of them once.

    Args:
        site: the files of the cluster.
        locate: path as jobs see it -> path on the cluster; relative for what is no path.
    """

    def __init__(self, site: Site, locate: Callable[[str], Path]) -> None:
        self._site = site
        self._locate = locate
        self._known: dict[str, Manifest | None] = {}

    def trace(self, inputs: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[Origin, ...]]:
        """Stage -> origins of its inputs, from stage -> path -> fingerprint."""
        self._read_generations({path for marks in inputs.values() for path in marks})
        return {stage: self._origins(marks, depth=0) for stage, marks in inputs.items()}

    def output(self, path: str) -> Origin:
        """An output itself."""
        self._read([path])
        return Origin(path=path, manifest=self._known[path])

    def _read_generations(self, paths: Iterable[str]) -> None:
        frontier = set(paths)
        for _ in range(_DEEPEST):
            unknown = frontier - self._known.keys()
            if not unknown:
                return
            self._read(sorted(unknown))
            frontier = {path for known in unknown for path in _inputs(self._known[known])}

    def _read(self, paths: Iterable[str]) -> None:
        places = {path: self._locate(path) for path in paths if path not in self._known}
        wanted = {str(place): [Want.OUTPUT] for place in places.values() if place.is_absolute()}
        facts = self._site.facts(wanted) if wanted else {}
        for path, place in places.items():
            self._known[path] = _parse(facts.get(str(place), Facts()), place)

    def _origins(self, marks: Mapping[str, str], *, depth: int) -> tuple[Origin, ...]:
        return tuple(
            Origin(
                path=path,
                fingerprint=mark,
                manifest=self._known.get(path),
                inputs=self._origins(_inputs(self._known.get(path)), depth=depth + 1) if depth < _DEEPEST else (),
            )
            for path, mark in marks.items()
        )


def _inputs(sealed: Manifest | None) -> Mapping[str, str]:
    fields: Mapping[str, Any] = sealed.identity.fields if sealed and sealed.identity else {}
    inputs: Mapping[str, str] = fields.get("inputs", {})
    return inputs


def _parse(facts: Facts, place: Path) -> Manifest | None:
    if facts.manifest is None:
        return None
    try:
        return manifest.parse(facts.manifest, place)
    except CheckpointError:
        return None
