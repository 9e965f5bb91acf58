"""``ns check``: the findings of a dry run by themselves, and those of a cluster configuration."""

import json
import os
import subprocess

import pytest

from skills_pipe.pipeline.cli import check, main


@pytest.fixture
def words(tmp_path, monkeypatch) -> list[str]:
    """A training run on this machine without mistakes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "records"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "data.jsonl").write_text('{"input": "a", "output": "b"}\n')
    paths = ["--output_dir=out", "--hf_model=./model", "--training_data=data.jsonl"]
    return ["nemo_rl", "sft", *paths, "++sft.max_num_steps=1"]


def subjects(text: str) -> dict[str, str]:
    """Subject -> how it went, of the table."""
    lines = [line.split("  ", 1) for line in text.splitlines() if "  " in line]
    return {subject: rest.strip() for subject, rest in lines}


def test_a_good_command_is_ok_in_every_subject(words, capsys):
    assert main(["check", *words]) == 0
    found = subjects(capsys.readouterr().out)
    for subject in ("configuration", "paths", "keys of the trainer", "rows of the data", "inputs and outputs"):
        assert found[subject].startswith("ok"), subject
    assert found["memory of the GPUs"] == "not checked  no GPU is asked for"


def test_uncommitted_code_is_told(words, tmp_path, capsys):
    """Jobs on a cluster get the working tree as it is, with all that is not committed yet."""
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.com", "-C", str(tmp_path)]
    (tmp_path / "program.py").write_text("a = 1\n")
    (tmp_path / "c.yaml").write_text(f"executor: slurm\njob_dir: {tmp_path}/jobs\naccount: a\ndefault_timeout: 10\n")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "all"], check=True)
    run = ["run_cmd", "--cluster=c.yaml", f"--log_dir={tmp_path}", "true"]
    assert main(["check", *run]) == 0
    assert "not committed" not in capsys.readouterr().out
    (tmp_path / "program.py").write_text("a = 2\n")
    (tmp_path / "new.py").touch()
    assert main(["check", *run]) == 0
    assert "2 of them with changes that are not committed" in subjects(capsys.readouterr().out)["code"]


def test_nothing_is_submitted_or_written(words, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert main(["check", *words]) == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_errors_of_all_subjects_are_told_and_end_with_2(words, tmp_path, capsys):
    (tmp_path / "data.jsonl").write_text('{"inputt": "a", "output": "b"}\n')
    wrong = [word for word in words if "hf_model" not in word]
    assert main(["check", *wrong, "--hf_model=./nosuch", "++sft.max_num_stepz=2"]) == 2
    told = capsys.readouterr().out
    assert "sft.max_num_stepz" in told and "did you mean 'sft.max_num_steps'" in told
    assert "nosuch, which does not exist" in told
    assert subjects(told)["keys of the trainer"] == "1 error"
    # The data's own keys are not known while the trainer's are wrong.
    assert subjects(told)["rows of the data"].startswith("not checked")


def test_rows_are_told_when_the_keys_are_right(words, tmp_path, capsys):
    (tmp_path / "data.jsonl").write_text('{"input": "a", "output": "b"}\n{"inputt": "a", "output": "b"}\n')
    assert main(["check", *words]) == 2
    told = capsys.readouterr().out
    assert "data.jsonl, line 2: neither 'messages' nor 'input' with 'output' among its keys" in told
    assert "did you mean 'inputt'?" in told
    assert "set ++data.on_bad_row=skip" in told
    assert main(["check", *words, "++data.on_bad_row=skip"]) == 0
    told = capsys.readouterr().out
    assert "such rows are left out" in told and "set ++data.on_bad_row=skip" not in told


def test_the_cluster_may_stand_before_the_command(words, tmp_path, capsys):
    (tmp_path / "here.yaml").write_text(f"executor: local\njob_dir: {tmp_path}/records\nmounts: [/a:/b]\n")
    assert main(["check", "--cluster=here.yaml", *words]) == 0
    assert "mounts have no effect on this machine" in capsys.readouterr().out
    assert main(["check", "--cluster=here.yaml", *words, "--cluster=here.yaml"]) == 2
    assert "cluster is given both" in capsys.readouterr().err


def test_a_configuration_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = {"executor": "slurm", "job_dir": str(tmp_path), "container_runtime": "pyxis", "account": "a"}
    images = {"containers": {"nemo-rl": "rl.sqsh"}, "mounts": [f"{tmp_path}:/w"], "env_vars": ["HF_HOME=/w"]}
    (tmp_path / "c.yaml").write_text(json.dumps(config | images))
    assert main(["check", "--cluster=c.yaml"]) == 2
    assert "image 'rl.sqsh' of 'nemo-rl' would be looked for in a registry" in capsys.readouterr().out
    (tmp_path / "c.yaml").write_text(json.dumps(config | images | {"containers": {"nemo-rl": "/rl.sqsh"}}))
    assert main(["check", "--cluster=c.yaml"]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nemo_rl", "sff"], "there is no command 'nemo_rl sff' (ns check): did you mean 'nemo_rl sft'?"),
        (["status"], "ns status submits nothing that could be checked"),
        (["run_cmd", "--clutser=x", "true"], "there is no option --clutser: did you mean '--cluster'?"),
    ],
)
def test_what_cannot_be_checked_is_told(words, told, capsys):
    assert main(["check", *words]) == 2
    assert told in capsys.readouterr().err


def test_the_python_function_takes_the_same_words(words, capsys):
    assert check(words=tuple(words)) == 0
    assert "rows of the data" in capsys.readouterr().out


@pytest.mark.slurm
def test_a_configuration_is_tried_on_its_cluster(slurm_accounting, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    good = {"executor": "slurm", "job_dir": str(tmp_path), "account": "research", "partition": "batch"}
    good |= {"cpu_partition": "cpu", "timeouts": {"tiny": 5}, "default_timeout": 10}
    (tmp_path / "good.yaml").write_text(json.dumps(good))
    assert main(["check", "--cluster=good.yaml"]) == 0
    found = subjects(capsys.readouterr().out)
    assert {"partitions", "accounts and limits", "sbatch --test-only", "files on the cluster"} <= found.keys()
    assert found["sbatch --test-only"].startswith("ok")
    assert "to start at" in found["sbatch --test-only"]
    assert "Job " not in found["sbatch --test-only"], "nobody can use the number of a job that is never submitted"
    (tmp_path / "bad.yaml").write_text(json.dumps(good | {"cpu_partition": "cpus", "timeouts": {"tiny": 6}}))
    assert main(["check", "--cluster=bad.yaml"]) == 2
    told = capsys.readouterr().out
    assert "there is no partition 'cpus' (cpu_partition of cluster 'bad'): did you mean 'cpu'?" in told
    assert "partition 'tiny' allows 0-00:05:00" in told


@pytest.mark.slurm
def test_containers_need_their_runtime(slurm, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(
        f"executor: slurm\njob_dir: {tmp_path}\npartition: batch\naccount: root\nskip_hf_home_check: true\n"
        "container_runtime: apptainer\ncontainers: {nemo-skills: 'docker://org/image'}\n"
    )
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    assert main(["check", "--cluster=a.yaml"]) == 0
    assert "warning: apptainer is not on the login node" in capsys.readouterr().out
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "apptainer").touch(0o755)
    assert main(["check", "--cluster=a.yaml"]) == 0
    assert subjects(capsys.readouterr().out)["container runtime"] == "ok           apptainer"
