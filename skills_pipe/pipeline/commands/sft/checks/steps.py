"""Whether the checkpoints that are to be converted or averaged will be there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skills_pipe.pipeline.checks.finding import Finding, error, warning

if TYPE_CHECKING:
    from skills_pipe.pipeline.commands.sft.options import SftOptions
    from skills_pipe.training.config import TrainingConfig


def check_steps(options: SftOptions, config: TrainingConfig) -> list[Finding]:
    """Steps that are not reached, not saved, or deleted before they are needed."""
    where = "--average_steps" if options.average_steps else "--conversion_step"
    steps = options.needed_steps
    period, last = config.checkpointing.save_period, config.sft.max_num_steps
    findings = []
    for step in steps:
        if last is not None and step > last:
            fix = "name earlier steps, or train longer"
            findings.append(error(f"step {step} is never reached: sft.max_num_steps is {last}", where=where, fix=fix))
        elif (not period or step % period) and step != last:
            rule = f"every {'step' if period == 1 else f'{period} steps'}" if period else "at the end only"
            what = f"step {step} is not saved: checkpoints are saved {rule} (checkpointing.save_period)"
            # Without a number of steps the last one is not known here; it is always saved.
            only_maybe = last is None
            findings.append(
                warning(f"{what}, and at the end" if period else what, where=where)
                if only_maybe
                else error(what, where=where, fix=_period_advice(period))
            )
    return findings + _check_kept(steps, config, where)


def _period_advice(period: int) -> str:
    setting = "set ++checkpointing.save_period"
    return f"name multiples of {period}, or {setting}" if period else setting


def _check_kept(steps: tuple[int, ...], config: TrainingConfig, where: str) -> list[Finding]:
    """Old checkpoints are deleted as training goes on; those that are needed are kept unless the user's keys differ."""
    settings = config.checkpointing
    missing = [str(step) for step in steps if step not in settings.keep_steps]
    if not missing or settings.keep_top_k is None:
        return []
    what = f"step {', '.join(missing)} may be deleted before it is needed: checkpointing.keep_steps does not name it"
    return [warning(what, where=where, fix="leave ++checkpointing.keep_steps out, or name it there")]
