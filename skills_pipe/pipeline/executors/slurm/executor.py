"""Submits the jobs of a plan to Slurm in one transaction, tells their states, cancels them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skills_pipe.artifacts.atomic import write_text
from skills_pipe.errors import PlanError, StoreError
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.executors.slurm.commands import Slurm, words_of
from skills_pipe.pipeline.executors.slurm.states import statuses
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.process import ProcessId
from skills_pipe.pipeline.records.states import JobStatus
from skills_pipe.pipeline.records.store import Run, SubmissionRecord
from skills_pipe.pipeline.scripts.dependency import dependency
from skills_pipe.pipeline.scripts.render import export_lines
from skills_pipe.pipeline.scripts.setting import ALL_STOPPED, JOBS, SECRETS, Setting, log_paths
from skills_pipe.pipeline.transport import Here, Transport


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
        """Queue all jobs, or none: they are held until the last one is accepted and recorded."""
        if self.cluster is None:
            raise StoreError("a recorded run cannot be submitted again")
        self.slurm.require()
        if self.secrets:
            lines = export_lines(self.secrets.items())
            write_text(run.folder / SECRETS, "\n".join(lines) + "\n", mode=0o600)
        for job in plan.jobs:
            for log in log_paths(Setting(job=job, plan=plan, cluster=self.cluster, run=run)):
                Path(log).parent.mkdir(parents=True, exist_ok=True)
        ids: dict[str, str] = {}
        try:
            for job in plan.jobs:
                ids[job.name] = self._queue(run, dependency(job, ids, self.after), job.name)
            # Looked up after all are queued: Slurm takes a job that it has forgotten for one that ended well.
            self._require_known()
            write_text(run.folder / JOBS, "".join(f"{name}\t{job_id}\n" for name, job_id in ids.items()))
            run.write_submission(self._record(run, plan, actions, ids))
            if ids:
                self._call(["scontrol", "release", ",".join(ids.values())])
        except BaseException:
            self.slurm.cancel(list(ids.values()))
            raise

    def statuses(self, run: Run) -> dict[str, JobStatus]:
        """States as Slurm tells them now; ends are recorded, for Slurm forgets."""
        return statuses(run, self.slurm)

    def cancel(self, run: Run) -> list[str]:
        """Cancel everything that is not over in one call: a single segment would let the next one start."""
        active = [status for status in self.statuses(run).values() if not status.state.ended]
        if active:
            write_text(run.folder / ALL_STOPPED, "stopped by `ns cancel`\n")
            self.slurm.cancel([status.job_id for status in active if status.job_id])
        return [status.job for status in active]

    @property
    def slurm(self) -> Slurm:
        """The programs of this cluster's Slurm."""
        return Slurm(self.transport)

    def _queue(self, run: Run, after: str | None, job: str) -> str:
        # SBATCH_EXPORT in the environment would win over the script, and take everything along.
        argv = ["sbatch", "--parsable", "--hold", "--export=NIL"]
        if after:
            # Cancels what can never start; safe because every segment repeats the edges of its chain.
            argv += [f"--dependency={after}", "--kill-on-invalid-dep=yes"]
        # --parsable gives "id" or "id;cluster".
        return self._call([*argv, f"{run.at}/scripts/{job}.sh"]).strip().partition(";")[0]

    def _require_known(self) -> None:
        known = self.slurm.queue(self.after)
        unknown = [job_id for job_id in self.after if job_id not in known]
        if unknown:
            raise PlanError(
                f"Slurm does not know job {', '.join(unknown)}, and would not wait for it",
                where="--run_after",
                fix="if it has ended, leave it away; else correct its number",
            )

    def _record(self, run: Run, plan: Plan, actions: Mapping[str, str], ids: Mapping[str, str]) -> SubmissionRecord:
        cluster = self.cluster
        if cluster is None:
            raise StoreError("a recorded run cannot be submitted again")
        return SubmissionRecord(
            executor="slurm",
            cluster=cluster.name,
            owner=ProcessId.current(),
            submitted_at=time.time(),
            actions=dict(actions),
            job_ids=dict(ids),
            logs={
                job.name: log_paths(Setting(job=job, plan=plan, cluster=cluster, run=run))[1].replace(
                    "%j", ids[job.name]
                )
                for job in plan.jobs
            },
        )

    def _call(self, argv: list[str]) -> str:
        answer = self.transport.run(argv)
        if not answer.ok:
            raise PlanError(f"{argv[0]} refused: {words_of(answer)}")
        return answer.out
