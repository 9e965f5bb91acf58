"""Check whether the files of a training hold rows of one kind, where the chat template is inferred from the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skills_pipe.artifacts.rows import Form, RowKeys
from skills_pipe.pipeline.checks.finding import Finding, error
from skills_pipe.pipeline.commands.sft.checks.trainer import config_of

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.commands.sft.options import SftOptions
    from skills_pipe.training.config.schema.data import DatasetConfig


def check_kinds_of_rows(request: Request[SftOptions]) -> list[Finding]:
    """What the trainer would refuse, as far as the first rows show it."""
    from skills_pipe.training.config.rules.kinds import another_kind

    config = config_of(request)
    if config is None or (config.policy.tokenizer.chat_template or "").lower() != "infer_from_data":
        return []
    first, *others = (*config.data.train, *config.data.validation)
    forms = _forms(request, first)
    if not forms:
        return []
    problems = (
        another_kind((str(first.data_path), forms[0]), (str(each.data_path), _forms(request, each))) for each in others
    )
    return [error(problem.what, where=problem.where, fix=problem.fix) for problem in problems if problem is not None]


def _forms(request: Request[SftOptions], dataset: DatasetConfig) -> list[Form]:
    """Forms of the first rows of a data set; none where they cannot be looked at."""
    from skills_pipe.pipeline.checks.questions import HEAD_BYTES
    from skills_pipe.pipeline.checks.rows import forms_in
    from skills_pipe.training.config.dataset_names import has_plain_rows

    path = dataset.data_path
    if not path or not has_plain_rows(dataset.dataset_name, path) or (head := request.head(path)) is None:
        return []
    keys = RowKeys(
        input_key=dataset.input_key,
        output_key=dataset.output_key,
        chat_key=dataset.chat_key,
        tool_key=dataset.tool_key,
    )
    return forms_in(head, keys, whole=len(head) < HEAD_BYTES)
