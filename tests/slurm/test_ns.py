"""``ns`` on the cluster of the fixtures, in containers of the small image."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from skills_pipe.pipeline.cli import run_cmd

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

IMPORT = "import os, torch, skills_pipe; print(torch.ones(2).sum().item(), skills_pipe.__file__, os.uname().nodename)"


def test_a_command_runs_in_a_container_with_our_packages(slurm, pyxis, tmp_path, monkeypatch):
    (tmp_path / "workspace").mkdir()
    monkeypatch.chdir(tmp_path)
    config = {
        "executor": "slurm",
        "job_dir": f"{tmp_path}/jobs",
        "account": "research",
        "partition": "batch",
        "container_runtime": "pyxis",
        "containers": {"nemo-rl": str(pyxis.folder), "nemo-skills": str(pyxis.folder)},
        "mounts": [f"{tmp_path}/workspace:/workspace", *pyxis.mounts],
        "skip_hf_home_check": True,
    }
    Path("cluster.yaml").write_text(yaml.safe_dump(config))
    command = f"python -c '{IMPORT}'"
    run = run_cmd(command=command, expname="here", cluster=f"{tmp_path}/cluster.yaml", log_dir="/workspace/logs").wait()
    assert run.succeeded
    (log,) = (tmp_path / "workspace" / "logs").glob("main_*_srun.log")
    assert log.read_text() == "2.0 /nemo_run/code/skills_pipe/__init__.py node1\n"
