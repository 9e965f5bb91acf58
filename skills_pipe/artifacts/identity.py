"""What a stage is made of: the options that matter, what it reads, and the stages before it, as one hash.

Two runs of a command with the same identity give the same result, so the second one can be skipped. The fields
are kept beside the hash: they say *what* changed when the hash differs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skills_pipe.artifacts.names import ENV_IDENTITY


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Identity of a stage.

    Attributes:
        digest: sha256 over the canonical JSON of ``fields``, hexadecimal.
        fields: ``options`` (name -> value), ``inputs`` (path -> fingerprint), whoever made them.
    """

    digest: str
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, *, options: Mapping[str, Any], inputs: Mapping[str, str]) -> Identity:
        """Identity of a stage with these options and input fingerprints."""
        fields = {"options": dict(options), "inputs": dict(inputs)}
        # The third section is of versions to which outputs of stages before were no inputs: their digests stay right.
        return cls(digest=digest({**fields, "upstream": {}}), fields=fields)

    @classmethod
    def from_environment(cls) -> Identity | None:
        """The identity that the launcher passed to this job; None in a program that was started by hand."""
        path = os.environ.get(ENV_IDENTITY)
        return cls.from_json(json.loads(Path(path).read_text())) if path else None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Identity:
        """Read back what :meth:`to_json` gave."""
        return cls(digest=value["digest"], fields=value["fields"])

    def to_json(self) -> dict[str, Any]:
        """Plain value for a JSON file."""
        return {"digest": self.digest, "fields": dict(self.fields)}

    def changes(self, other: Identity) -> list[str]:
        """The fields in which ``other`` differs, as ``options.num_gpus: 8 -> 4`` lines."""
        lines = []
        for section in ("options", "inputs"):
            before, after = self.fields.get(section, {}), other.fields.get(section, {})
            for key in sorted(before.keys() | after.keys()):
                if before.get(key) != after.get(key):
                    lines.append(f"{section}.{key}: {_show(before, key)} -> {_show(after, key)}")
        return lines


def digest(value: Any) -> str:
    """sha256 of a JSON value, independent of the order of its keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _show(fields: Mapping[str, Any], key: str) -> str:
    return json.dumps(fields[key], ensure_ascii=False) if key in fields else "(not set)"
