"""The checkpoints of one run: start, resume, save, retire, complete.

::

    manager = CheckpointManager(folder, run=run, retention=retention)
    manager.start()
    point = manager.resume(trainee)          # None: a fresh run
    ...
    manager.save(trainee, info, position)
    manager.poll(trainee)                    # after each step, where saves are written in the background
    ...
    manager.complete({"steps": 120})         # or manager.close() when the work goes on in another job

Every method is called on every rank.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.training.checkpoint import owner as owners
from skills_pipe.training.checkpoint.background import BackgroundWriter
from skills_pipe.training.checkpoint.changes import Changes, changes_since, in_one_line
from skills_pipe.training.checkpoint.comparable import comparable_metrics
from skills_pipe.training.checkpoint.jobs import TrainingJob, jobs_of, other_kernels
from skills_pipe.training.checkpoint.layout import whole_steps
from skills_pipe.training.checkpoint.owner import Owner
from skills_pipe.training.checkpoint.ranks import on_first, world_size
from skills_pipe.training.checkpoint.resume import latest_whole, restore
from skills_pipe.training.checkpoint.retention import Retention
from skills_pipe.training.checkpoint.retired import Retired
from skills_pipe.training.checkpoint.save import remove_stale, write_step
from skills_pipe.training.checkpoint.snapshot import Snapshot, live_states
from skills_pipe.training.checkpoint.state import DataPosition, ResumePoint, RunDescription, Trainee, TrainingInfo


class CheckpointManager:
    """Saves and restores one run.

    Args:
        folder: ``checkpointing.checkpoint_dir``.
        run: what all checkpoints of the run have in common.
        retention: which steps stay; by default all.
        accept_changes: resume although the base model or the data changed (``checkpointing.on_change=continue``).
        in_background: write while training goes on, from a copy in host memory that is kept.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run: RunDescription,
        retention: Retention | None = None,
        accept_changes: bool = False,
        in_background: bool = False,
    ) -> None:
        self._folder = folder
        self._run = run
        self._retention = retention or Retention()
        self._accept_changes = accept_changes
        self._in_background = in_background
        self._background: BackgroundWriter | None = None
        self._owner: Owner | None = None
        self._longest_save = 0.0
        self._retired = Retired(folder)
        self._notices: deque[str] = deque()  # the thread that saves adds to it

    @property
    def longest_save_seconds(self) -> float:
        """Longest that a save may take to be on disk, as far as was seen; 0 before the first.

        Twice that of one save while another one is still being written.
        """
        under_way = self._background is not None and self._background.busy
        return self._longest_save * (2 if under_way else 1)

    def start(self) -> None:
        """Claim the folder and clear away what killed writers left.

        Raises:
            CheckpointError: another live process trains into the folder.
        """
        self._owner = on_first(lambda: owners.claim(self._folder))
        self._begin_job()
        self._notices.extend(on_first(self._clear))
        if self._in_background:
            self._background = BackgroundWriter()

    def resume(self, trainee: Trainee) -> ResumePoint | None:
        """Restore the latest whole checkpoint, None when there is none.

        Raises:
            CheckpointError: the checkpoint is damaged or belongs to another run.
        """
        found = on_first(lambda: latest_whole(self._folder))
        if found is None:
            return None
        point = restore(found, run=self._run, trainee=trainee, accept_changes=self._accept_changes)
        before = jobs_of(found.manifest)
        changes = on_first(lambda: changes_since(found, self._run))
        self._begin_job(before, done=point.info.total_steps, changes=changes)
        self._notices.extend(other_kernels(before, self._run.kernels))
        changed = in_one_line(changes, since=found.path.name)
        return replace(point, warnings=(changed, *point.warnings)) if changed else point

    def save(
        self, trainee: Trainee, info: TrainingInfo, position: DataPosition, *, wait: bool = False
    ) -> tuple[int, ...]:
        """Write the checkpoint of ``info.total_steps``, then delete those that the retention rule lets go.

        In the background, this returns as soon as the state is copied, and a save that is still under way is waited
        for first. Where a rank lacks the memory for a copy, this save and those that follow are waited for.

        Args:
            trainee: the live objects.
            info: counters.
            position: in the data.
            wait: return when the checkpoint is on disk, as at the end of a job.

        Returns:
            the steps whose checkpoints are on disk now and were not told before.

        Raises:
            CheckpointError: it, or the one before, could not be written; the earlier checkpoints are untouched.
        """
        told = self._finish()
        snapshot = Snapshot.of(trainee, self._run, info, position)
        if not wait and self._begin_in_background(snapshot):
            return told
        begin = time.monotonic()
        self._write(snapshot)
        self._longest_save = max(self._longest_save, time.monotonic() - begin)
        return *told, info.total_steps

    def poll(self, trainee: Trainee) -> tuple[int, ...]:
        """The step whose checkpoint came onto disk since it was last asked, if any; called after each step.

        Raises:
            CheckpointError: the save under way has failed; the earlier checkpoints are untouched.
        """
        if self._background is None:
            return ()
        # After the first step the optimizer has its state: the memory is taken before it is needed.
        self._background.reserve(lambda: live_states(trainee, self._run))
        return self._finish() if self._background.has_ended() else ()

    def take_notices(self) -> list[str]:
        """What the user should know and was not told yet; on rank 0."""
        return [self._notices.popleft() for _ in range(len(self._notices))]

    def close(self) -> None:
        """Give the folder back at the end of this process's work, once the save under way is on disk.

        Raises:
            CheckpointError: it could not be written.
        """
        try:
            self._finish()
        finally:
            self._give_back()

    def settle(self) -> None:
        """Let the save under way end, well or not, where this process ends by a failure, of which others may not know.

        Unlike :meth:`close` it asks nothing of the other ranks but that their saves go on.
        """
        if self._background is not None:
            self._background.close()

    def complete(self, facts: Mapping[str, Any]) -> None:
        """Close, and seal the folder as a finished training."""
        self.close()
        on_first(lambda: manifests.seal(self._folder, kind="training", facts=facts))

    def _begin_job(
        self, before: tuple[TrainingJob, ...] = (), *, done: int = 0, changes: Changes | None = None
    ) -> None:
        """Enter this job, with what it changes, behind those that have trained the first ``done`` steps."""
        ranks, kernels = world_size(), self._run.kernels
        mine = on_first(lambda: TrainingJob.now(first_step=done + 1, ranks=ranks, kernels=kernels, changes=changes))
        self._run = replace(self._run, jobs=(*before, mine))

    def _clear(self) -> list[str]:
        remove_stale(self._folder)
        return self._retired.delete(())

    def _give_back(self) -> None:
        if self._background is not None:
            self._background.close()
            self._background = None
        if self._owner is not None:
            on_first(lambda: owners.release(self._folder, self._claimed()))
            self._owner = None

    def _begin_in_background(self, snapshot: Snapshot) -> bool:
        """Whether the snapshot is being written in the background from here on; the same on every rank."""
        if self._background is None:
            return False
        lacking = self._background.begin(snapshot, self._write)
        if not lacking:
            return True
        self._background.close()
        self._background = None
        self._notices.append(
            "checkpoints are no longer written in the background: there is no memory for a copy of the state on "
            f"rank{'s' if len(lacking) > 1 else ''} {', '.join(map(str, lacking))}; each save is waited for instead"
        )
        return False

    def _finish(self) -> tuple[int, ...]:
        """Wait for the save under way; its step, if there was one."""
        written = self._background.finish() if self._background is not None else None
        if written is None:
            return ()
        self._longest_save = max(self._longest_save, written.seconds)
        return (written.step,)

    def _write(self, snapshot: Snapshot) -> None:
        write_step(self._folder, owner=self._claimed(), run=self._run, snapshot=snapshot)
        on_first(self._retire)

    def _claimed(self) -> Owner:
        if self._owner is None:
            raise RuntimeError("CheckpointManager.start() was not called")
        return self._owner

    def _retire(self) -> None:
        metrics = comparable_metrics({step: manifest for step, _, manifest in whole_steps(self._folder)})
        self._notices.extend(self._retired.delete(self._retention.obsolete(metrics)))
