"""What went wrong in a run and what to do next, one sentence for each thing."""

from __future__ import annotations

from dataclasses import dataclass

from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.reports.report import JobReport, RunReport, StageReport
from skills_pipe.pipeline.reports.waiting import HELD, NEVER


@dataclass(frozen=True, kw_only=True)
class Typed:
    """How a user refers to a run on the command line: ``my-sft``, or ``my-sft/run-2`` for an older one.

    Attributes:
        cluster: what was given as ``--cluster``, None without.
    """

    name: str
    cluster: str | None = None

    def command(self, verb: str, *words: str) -> str:
        """``ns logs my-sft sft --cluster=slurm``, in the quotes of a sentence."""
        where = (f"--cluster={self.cluster}",) if self.cluster else ()
        return f"`{' '.join(('ns', verb, self.name, *words, *where))}`"


def advice(report: RunReport, typed: Typed) -> tuple[str, ...]:
    """Sentences about everything in a run that somebody has to see to; none when all is well."""
    if report.being_submitted:
        return ("it is being submitted right now",)
    if report.submitted_at is None:
        return (
            "this run was not submitted: it was refused, or `ns` was stopped before the end; "
            "nothing of it will start, give its command again",
        )
    sentences = [sentence for stage in report.stages for sentence in _of_stage(stage, typed)]
    if report.ended and not report.good and not any("ns resume" in sentence for sentence in sentences):
        sentences.append(f"{typed.command('resume')} submits what is not finished again")
    return tuple(dict.fromkeys(sentences))


def _of_stage(stage: StageReport, typed: Typed) -> list[str]:
    sentences = [sentence for job in stage.jobs for sentence in _of_waiting(job, stage, typed)]
    sentences += [_restarted(job) for job in stage.jobs if job.status.restarts and not job.status.state.ended]
    if stage.stopped and stage.state is not JobState.SUCCEEDED:
        sentences.append(f"the chain of {stage.name} was stopped: {stage.stopped}")
    if stage.state is JobState.FAILED:
        sentences.append(_failed(stage, typed))
    if stage.state is JobState.LOST:
        lost = [job.status.job for job in stage.jobs if job.status.state is JobState.LOST]
        sentences.append(
            f"nobody knows how {lost[-1]} ended: its log may tell, {typed.command('logs', stage.name)}; "
            f"{typed.command('resume')} goes on from the last checkpoint, or begins the stage anew"
        )
    if stage.state is JobState.CONTINUED:
        step = _last_step(stage)
        sentences.append(
            f"{stage.name} has used up its jobs before its work was done{step}: "
            f"{typed.command('resume', '--num_training_jobs=1')} adds one, or as many as you say"
        )
    return sentences


def _of_waiting(job: JobReport, stage: StageReport, typed: Typed) -> list[str]:
    if job.status.state is not JobState.PENDING:
        return []
    if job.note.startswith(NEVER):
        return [f"{job.status.job} {job.note}; {typed.command('cancel', f'--stage={stage.name}')} takes it away"]
    if job.note.startswith(HELD):
        return [f"{job.status.job} is {job.note}: `scontrol release {job.status.job_id}` lets it go"]
    return []


def _restarted(job: JobReport) -> str:
    times = "once" if job.status.restarts == 1 else f"{job.status.restarts} times"
    return f"{job.status.job} was requeued {times}: preempted, or a node failed; it uses up no further job of the plan"


def _failed(stage: StageReport, typed: Typed) -> str:
    failed = [job for job in stage.jobs if job.status.state is JobState.FAILED][-1]
    why = f" ({failed.note})" if failed.note else ""
    return (
        f"{failed.status.job} failed{why}{_last_step(stage)}: {typed.command('logs', stage.name)} shows its end; "
        f"when that is mended, {typed.command('resume')}"
    )


def _last_step(stage: StageReport) -> str:
    steps = [job.progress.checkpoint for job in stage.jobs if job.progress and job.progress.checkpoint is not None]
    return f"; its last checkpoint is step {max(steps)}" if steps else ""
