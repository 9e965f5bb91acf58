"""Check whether the files of a training hold rows of one kind, where the chat template is inferred from the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skills_pipe.artifacts.rows import Form
from skills_pipe.pipeline.checks.finding import Finding, error, warning
from skills_pipe.pipeline.commands.sft.checks.head import head_of
from skills_pipe.pipeline.commands.sft.checks.trainer import config_of

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.checks.rows import Forms
    from skills_pipe.pipeline.commands.sft.options import SftOptions
    from skills_pipe.training.config.schema.data import DatasetConfig


def check_kinds_of_rows(request: Request[SftOptions]) -> list[Finding]:
    """What the trainer would refuse, as far as the first rows show it."""
    from skills_pipe.training.config.rules.kinds import settles_nothing

    config = config_of(request)
    if config is None or (config.policy.tokenizer.chat_template or "").lower() != "infer_from_data":
        return []
    first, *others = (*config.data.train, *config.data.validation)
    forms = _forms(request, first)
    if not forms.found:
        return []
    problem = settles_nothing(forms.found[0])
    if problem is not None:
        return [error(f"{first.data_path}: {problem.what}", where=problem.where, fix=problem.fix)]
    trained = (str(first.data_path), forms.found[0])
    judged = (_another_kind(trained, str(each.data_path), _forms(request, each)) for each in others)
    return [finding for finding in judged if finding is not None]


def _another_kind(trained: tuple[str, Form], path: str, forms: Forms) -> Finding | None:
    from skills_pipe.training.config.rules.kinds import another_kind

    problem = another_kind(trained, (path, forms.found))
    if problem is None:
        return None
    if forms.settled:
        return error(problem.what, where=problem.where, fix=problem.fix)
    # Rows that are not seen here may be of the other kind, and then these are single bad rows.
    return warning(f"{problem.what}, as far as its first rows were read", where=problem.where, fix=problem.fix)


def _forms(request: Request[SftOptions], dataset: DatasetConfig) -> Forms:
    """Forms of the first rows of a data set; none where they cannot be looked at."""
    from skills_pipe.pipeline.checks.rows import Forms, forms_in
    from skills_pipe.training.config.rules.kinds import LOOKED_AT

    head = head_of(request, dataset)
    return forms_in(head.content, head.keys, whole=head.whole, rows=LOOKED_AT) if head else Forms()
