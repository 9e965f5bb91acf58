"""Submits the jobs of a plan to Slurm in one transaction, tells their states, cancels them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from skills_pipe.artifacts.atomic import write_text
from skills_pipe.errors import StoreError
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.executors.slurm.commands import Slurm
from skills_pipe.pipeline.executors.slurm.states import statuses
from skills_pipe.pipeline.executors.slurm.submission import hand_over, is_broken_off, settle
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.cancelling import CANCELLED, jobs_with, record_cancel, stopped_note
from skills_pipe.pipeline.records.process import ProcessId
from skills_pipe.pipeline.records.states import JobStatus
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.records.submission import SubmissionRecord
from skills_pipe.pipeline.scripts.render import export_lines
from skills_pipe.pipeline.scripts.setting import ALL_STOPPED, SECRETS, Setting, log_patterns
from skills_pipe.pipeline.scripts.submission import submission_script
from skills_pipe.pipeline.transport.base import Transport
from skills_pipe.pipeline.transport.here import Here


@dataclass(frozen=True, kw_only=True)
class SlurmExecutor:
    """Jobs of the Slurm cluster that ``transport`` reaches.

    Attributes:
        cluster: needed for submitting only.
        secrets: variables for the jobs that must not stand in their scripts.
        after: ids of jobs of earlier runs that must end well first.
        transport: how Slurm's programs are called.
    """

    cluster: ClusterConfig | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    transport: Transport = field(default_factory=Here)

    def submit(self, run: Run, plan: Plan, actions: Mapping[str, str]) -> None:
        """Queue all jobs, or none, in one call of bash: they are held until the last one is accepted and recorded."""
        cluster = self.cluster
        if cluster is None:
            raise StoreError("a recorded run cannot be submitted again")
        if isinstance(self.transport, Here):
            # Elsewhere the script says so itself: a question of its own would cost a round trip.
            self.slurm.require()
        # Empty too: containers see something else in its place, for which it must be there.
        secrets = "".join(f"{line}\n" for line in export_lines(self.secrets.items()))
        write_text(run.folder / SECRETS, secrets, mode=0o600)
        draft = SubmissionRecord(
            executor="slurm",
            cluster=cluster.name,
            owner=ProcessId.current(),
            submitted_at=time.time(),
            actions=dict(actions),
            logs={
                job.name: log_patterns(Setting(job=job, plan=plan, cluster=cluster, run=run))[1] for job in plan.jobs
            },
            # Through ssh it is always that of the tunnel.
            slurm=self.slurm.name() if isinstance(self.transport, Here) else "",
        )
        if not plan.jobs:
            run.write_submission(draft)
            return
        self._settle_earlier(run)
        script = submission_script(plan, cluster, run, self.after)
        run.write_submit_script(script)
        hand_over(run, draft, script, self.slurm)

    def statuses(self, run: Run) -> dict[str, JobStatus]:
        """States as Slurm tells them now; ends are recorded, for Slurm forgets."""
        return statuses(run, self.slurm)

    def cancel(self, run: Run, stages: Sequence[str] = ()) -> list[str]:
        """Cancel everything that is not over in one call: a single segment would let the next one start."""
        meant = jobs_with(run.plan, stages or [stage.name for stage in run.plan.stages])
        active = [status for status in self.statuses(run).values() if status.job in meant and not status.state.ended]
        if active:
            record_cancel(run, [status.job for status in active])
            one_by_one = [stopped_note(run, stage) for stage in sorted({status.stage for status in active})]
            for note in one_by_one if stages else [run.folder / ALL_STOPPED]:
                write_text(note, f"{CANCELLED}\n")
            self.slurm.cancel([status.job_id for status in active if status.job_id])
        return [status.job for status in active]

    def _settle_earlier(self, run: Run) -> None:
        """What an earlier submission of the experiment has left must not run beside this one."""
        if run.at != str(run.folder):
            return
        for folder in run.folder.parent.glob("run-*"):
            earlier = Run(folder)
            if folder != run.folder and is_broken_off(earlier):
                settle(earlier, self.slurm)

    @property
    def slurm(self) -> Slurm:
        """The programs of this cluster's Slurm."""
        return Slurm(self.transport)
