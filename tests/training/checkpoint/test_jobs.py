"""Every checkpoint knows the jobs that trained it."""

import json
from dataclasses import replace

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.training.checkpoint import jobs as module
from skills_pipe.training.checkpoint.jobs import TrainingJob, code_hash, jobs_of
from tests.training.checkpoint.runs import RUN, info_at, new_manager, new_trainee, position_at, train


def job_that_trains(folder, *steps):
    """One job: resume, train and save these steps."""
    manager, trainee = new_manager(folder), new_trainee()
    manager.resume(trainee)
    for step in steps:
        train(trainee, 1)
        manager.save(trainee, info_at(step), position_at(step))
    manager.close()


def jobs_at(folder, step):
    return jobs_of(manifests.read(folder / f"step_{step}"))


def test_a_chain_of_jobs_is_remembered_in_its_order(tmp_path, monkeypatch):
    for name, steps in (("41", (1, 2)), ("42", (3,))):
        monkeypatch.setenv("SLURM_JOB_ID", name)
        job_that_trains(tmp_path, *steps)
    assert [(job.job, job.first_step) for job in jobs_at(tmp_path, 3)] == [("41", 1), ("42", 3)]
    assert [job.job for job in jobs_at(tmp_path, 2)] == ["41"]
    assert jobs_at(tmp_path, 3)[0] == jobs_at(tmp_path, 1)[0]
    assert jobs_at(tmp_path, 3)[1].code == code_hash()


def test_a_job_that_saved_nothing_trained_nothing_that_is_left(tmp_path, monkeypatch):
    for name, steps in (("1", (1,)), ("2", ()), ("3", (2,))):
        monkeypatch.setenv("SLURM_JOB_ID", name)
        job_that_trains(tmp_path, *steps)
    assert [job.job for job in jobs_at(tmp_path, 2)] == ["1", "3"]


def test_outside_of_slurm_a_job_has_no_id(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert TrainingJob.now(first_step=1, ranks=1).job is None


def test_a_job_remembers_what_computed_attention_and_the_loss(tmp_path):
    manager = new_manager(tmp_path, run=replace(RUN, kernels={"attention": "flash-attn 2.8.3"}))
    manager.save(new_trainee(), info_at(1), position_at(1))
    manager.close()
    (job,) = jobs_at(tmp_path, 1)
    assert job.kernels == {"attention": "flash-attn 2.8.3"}
    # One that was written before kernels were recorded is read.
    path = tmp_path / "step_1" / "manifest.json"
    value = json.loads(path.read_text())
    del value["facts"]["jobs"][0]["kernels"]
    path.write_text(json.dumps(value))
    assert jobs_at(tmp_path, 1)[0].kernels == {}


def test_checkpoints_from_before_jobs_were_recorded_are_resumed(tmp_path):
    job_that_trains(tmp_path, 1)
    path = tmp_path / "step_1" / "manifest.json"
    value = json.loads(path.read_text())
    del value["facts"]["jobs"]
    path.write_text(json.dumps(value))
    job_that_trains(tmp_path, 2)
    assert [job.first_step for job in jobs_at(tmp_path, 2)] == [2]


def test_any_change_of_the_sources_changes_the_hash_and_nothing_else_does(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PACKAGE", tmp_path)
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "a.py").write_text("x = 1\n")

    def hashed():
        code_hash.cache_clear()
        return code_hash()

    first = hashed()
    (tmp_path / "room" / "a.pyc").write_text("compiled")
    assert hashed() == first
    (tmp_path / "room" / "a.py").write_text("x = 2\n")
    second = hashed()
    (tmp_path / "room" / "a.py").rename(tmp_path / "room" / "b.py")
    assert len({first, second, hashed()}) == 3
    monkeypatch.undo()
    code_hash.cache_clear()


def test_other_kernels_than_those_of_the_job_before_are_told(tmp_path):
    told = []
    for step, attention in ((1, "flash-attn 2.8.3"), (2, "flash-attn 2.8.3"), (3, "our own")):
        manager = new_manager(tmp_path, run=replace(RUN, kernels={"attention": attention, "loss": "our own"}))
        trainee = new_trainee()
        manager.resume(trainee)
        told.append(manager.take_notices())
        manager.save(trainee, info_at(step), position_at(step))
        manager.close()
    assert told[:2] == [[], []]
    assert told[2] == ["attention is computed by our own from here on, and was by flash-attn 2.8.3 in the job before"]
