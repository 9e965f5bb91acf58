"""Check of the first rows of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skills_pipe.pipeline.checks.finding import Checked, error, warning
from skills_pipe.pipeline.commands.sft.checks.head import head_of
from skills_pipe.pipeline.commands.sft.checks.trainer import NO_CONFIG, config_of

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.commands.sft.options import SftOptions

_ROWS_FIX = "correct the data, name its keys, or set ++data.on_bad_row=skip"
_SKIPPED_FIX = "correct the data, or name its keys; such rows are left out (data.on_bad_row=skip)"


def check_rows(request: Request[SftOptions]) -> Checked:
    """What is wrong with the first rows of the data."""
    from skills_pipe.pipeline.checks.rows import faults_in

    subject = "rows of the data"
    config = config_of(request)
    if config is None:
        return Checked(subject=subject, left_out=NO_CONFIG)
    skips = config.data.on_bad_row == "skip"
    tell, fix = (warning, _SKIPPED_FIX) if skips else (error, _ROWS_FIX)
    findings, read = [], []
    for dataset in (*config.data.train, *config.data.validation):
        head = head_of(request, dataset)
        if head is None:
            continue
        read.append(head.path)
        faults = faults_in(head.content, head.keys, whole=head.whole)
        more = f" (and {len(faults) - 1} more of the first rows)" if len(faults) > 1 else ""
        findings += [tell(f"{head.path}, {fault}{more}", fix=fix) for fault in faults[:1]]
    return Checked(subject=subject, findings=tuple(findings), left_out=None if read else "no file could be read here")
