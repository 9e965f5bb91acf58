"""How a data set begins, for the checks that look at its first rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from skills_pipe.artifacts.rows import RowKeys

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.commands.sft.options import SftOptions
    from skills_pipe.training.config.schema.data import DatasetConfig


@dataclass(frozen=True, kw_only=True)
class Head:
    """The beginning of a file of rows.

    Attributes:
        path: of the file, as it was given.
        content: its first kilobytes.
        keys: by which its rows are read.
        whole: ``content`` is all of the file, so its last line is not cut off.
    """

    path: str
    content: bytes
    keys: RowKeys
    whole: bool


def head_of(request: Request[SftOptions], dataset: DatasetConfig) -> Head | None:
    """The beginning of a data set; None where it cannot be looked at, or has no rows of its own."""
    from skills_pipe.pipeline.checks.questions import HEAD_BYTES
    from skills_pipe.training.config.dataset_names import has_plain_rows

    path = dataset.data_path
    if not path or not has_plain_rows(dataset.dataset_name, path) or (content := request.head(path)) is None:
        return None
    keys = RowKeys(
        input_key=dataset.input_key,
        output_key=dataset.output_key,
        chat_key=dataset.chat_key,
        tool_key=dataset.tool_key,
    )
    return Head(path=path, content=content, keys=keys, whole=len(content) < HEAD_BYTES)
