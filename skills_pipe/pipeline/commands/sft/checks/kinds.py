"""Check whether the files of a training hold rows of one kind, where the chat template is inferred from the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skills_pipe.artifacts.rows import KINDS, Form, RowKeys
from skills_pipe.pipeline.checks.finding import Finding, error, warning
from skills_pipe.pipeline.commands.sft.checks.trainer import config_of

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.commands.sft.options import SftOptions
    from skills_pipe.training.config.schema.data import DatasetConfig

_FIX = (
    "set ++policy.tokenizer.chat_template=default, which makes the text of both by the tokenizer's template, "
    "or write both files with rows of one kind"
)


def check_kinds_of_rows(request: Request[SftOptions]) -> list[Finding]:
    """What the trainer would refuse, or leave out whole; as far as the first rows show it."""
    config = config_of(request)
    if config is None or (config.policy.tokenizer.chat_template or "").lower() != "infer_from_data":
        return []
    first, *others = (*config.data.train, *config.data.validation)
    forms = _forms(request, first)
    if not forms:
        return []
    tell = warning if config.data.on_bad_row == "skip" else error
    findings = []
    for dataset in others:
        found = set(_forms(request, dataset))
        if len(found) == 1 and forms[0] not in found:
            what = f"{first.data_path} holds rows of {KINDS[forms[0]]}, {dataset.data_path} rows of "
            findings.append(tell(f"{what}{KINDS[found.pop()]}", where="policy.tokenizer.chat_template", fix=_FIX))
    return findings


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
