"""Outputs of this machine that cannot be made are told before anything runs, and finding out writes nothing."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from skills_pipe.pipeline.checks.places import check_places
from skills_pipe.pipeline.cli import main
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands import sft
from skills_pipe.pipeline.options.declaration import build

HERE = ClusterConfig(name="local", job_dir="/jobs", working_dir="/home/me")


def found_at(output_dir: str) -> list[str]:
    options = build(sft.SftOptions, {"output_dir": output_dir, "hf_model": "org/model", "training_data": "/rows.jsonl"})
    flags = {output_dir: "--output_dir"}
    return [str(finding) for finding in check_places(sft.plan(options, (), HERE), flags.get)]


def test_folders_that_can_be_made_are_not_made_and_no_finding(tmp_path):
    (tmp_path / "there").mkdir()
    assert found_at(str(tmp_path / "there")) == []
    assert found_at(str(tmp_path / "a" / "b")) == []
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("folder", ["/proc/nope", "/proc/a/b", "/sys/nope"])
def test_file_systems_of_the_kernel_have_no_room(folder):
    kind = "proc" if folder.startswith("/proc") else "sysfs"
    (found,) = found_at(folder)
    top = "/" + folder.split("/")[1]
    told = f"{folder} cannot be made: {top} is on {kind}, a file system of the kernel's own"
    assert found == f"error: {told} (--output_dir): choose another folder"


def test_a_file_on_the_way_and_a_link_to_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    assert f"{tmp_path}/file is no folder" in found_at(str(tmp_path / "file" / "run"))[0]
    assert f"{tmp_path}/link is a link to nothing" in found_at(str(tmp_path / "link"))[0]


def test_a_file_that_is_the_output_itself_is_replaced(tmp_path):
    options = build(sft.SftOptions, {"output_dir": str(tmp_path), "hf_model": "org/m", "training_data": "/rows.jsonl"})
    plan = sft.plan(options, (), HERE)
    (tmp_path / "out.jsonl").write_text("")
    plan = replace(plan, stages=(replace(plan.stages[0], output=str(tmp_path / "out.jsonl")), *plan.stages[1:]))
    assert check_places(plan, lambda path: None) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    assert f"you may not write to {tmp_path}/closed" in found_at(str(tmp_path / "closed" / "run"))[0]


def test_a_dry_run_ends_with_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"input": "a", "output": "b"}\n')
    Path("model").mkdir()
    Path("model/config.json").write_text('{"model_type": "llama"}')
    words = ["nemo_rl", "sft", "--hf_model=./model", "--training_data=rows.jsonl", "--dry_run"]
    assert main([*words, "--output_dir=out"]) == 0
    assert main([*words, "--output_dir=/proc/nope"]) == 2
    assert "/proc/nope cannot be made" in capsys.readouterr().err
