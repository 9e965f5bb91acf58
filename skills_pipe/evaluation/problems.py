"""The problems of a benchmark, as they lie on disk, and what decides the answers to them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from skills_pipe.artifacts import manifest
from skills_pipe.artifacts.identity import Identity, digest
from skills_pipe.errors import DataError
from skills_pipe.evaluation.prompts.template import Prompt
from skills_pipe.evaluation.settings import EvalSettings

_SPEED_ONLY = ("batch_size", "timeout")
"""Settings of inference that change no answer."""


def read_problems(settings: EvalSettings) -> list[dict[str, Any]]:
    """The rows of the split, the first ``max_samples`` of them.

    Raises:
        DataError: the file is missing, empty, or has a line that is no row with an ``expected_answer``.
    """
    path = settings.data_path
    limit = settings.keys.max_samples
    rows: list[dict[str, Any]] = []
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if len(rows) == limit:
                    break
                rows.append(_parse(line, f"{path}:{number}"))
    except FileNotFoundError as error:
        name = settings.benchmark.name
        raise DataError(
            f"there is no data of {name}, split {settings.split}",
            where=str(path),
            fix=f"write it with: ns prepare_data {name} --data_dir={settings.data_dir}",
        ) from error
    if not rows:
        raise DataError("there is no problem in it", where=str(path), fix="prepare the data again")
    return rows


def identity_of(settings: EvalSettings, prompt: Prompt, seed: int | None) -> Identity:
    """Everything that decides the answers and grades of one run."""
    keys = settings.keys
    inference = asdict(replace(keys.inference, random_seed=seed if seed is not None else keys.inference.random_seed))
    grading = {name: value for name, value in asdict(keys.eval_config).items() if name != "workers"}
    options = {
        **{f"inference.{name}": value for name, value in inference.items() if name not in _SPEED_ONLY},
        **{f"eval_config.{name}": value for name, value in grading.items()},
        "benchmark": settings.benchmark.name,
        "split": settings.split,
        "max_samples": keys.max_samples,
        "prompt.user": prompt.user,
        "prompt.system": prompt.system,
        "chat_template_kwargs": dict(keys.chat_template_kwargs),
        "dtype": keys.dtype,
        "server_type": settings.server_type,
        "server.extra_body": dict(keys.server.extra_body),
        "server.model": keys.server.model,
    }
    inputs = {"data": _file_digest(settings.data_path), "model": _fingerprint(settings)}
    return Identity.of(options=json.loads(json.dumps(options)), inputs=inputs)


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"no JSON: {error}", where=where, fix="prepare the data again") from error
    if not isinstance(row, dict) or "expected_answer" not in row:
        raise DataError("the line is no object with 'expected_answer'", where=where, fix="prepare the data again")
    return row


def _file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _fingerprint(settings: EvalSettings) -> str:
    """The model by its contents where they are sealed, else by its files' sizes and times, else by its name."""
    folder = Path(settings.model)
    if settings.server_type != "hf" or not folder.is_dir():
        return f"name:{settings.model}"
    sealed = manifest.read(folder)
    if sealed is not None:
        return f"content:{sealed.digest}"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return f"files:{digest(stats)}"
