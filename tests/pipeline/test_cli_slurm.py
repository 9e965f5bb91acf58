"""``ns`` with a real Slurm: the same commands, from the queue to the log."""

import pytest

from skills_pipe.pipeline.cli import main, run_cmd

pytestmark = pytest.mark.slurm


@pytest.fixture
def cluster(slurm, tmp_path, monkeypatch) -> str:
    """The path of a configuration for the cluster that runs."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "here.yaml"
    path.write_text(
        f"executor: slurm\njob_dir: {tmp_path}/jobs\naccount: root\npartition: batch\ncpu_partition: cpu\n"
        'default_timeout: 10:00\nenv_vars: [GREETING=it\'s "me"]\n'
    )
    return str(path)


def test_what_is_queued_says_where_the_model_will_be(cluster, tmp_path, capsys):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    folders = [f"--input_model={tmp_path}/run", f"--output_model={tmp_path}/model"]
    assert main(["convert", f"--cluster={cluster}", "--expname=to-come", *folders]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"model, once it is made: {tmp_path}/model"
    assert main(["cancel", "to-come", f"--cluster={cluster}"]) == 0


def test_a_command_is_queued_and_its_words_and_variables_arrive(cluster, capsys):
    words = ["bash", "-c", 'echo "$GREETING" and "$1" in $SLURM_JOB_PARTITION', "-", "a  b $HOME"]
    assert main(["run_cmd", f"--cluster={cluster}", "--expname=hello", *words]) == 0
    assert f"`ns status hello --cluster={cluster}`" in capsys.readouterr().out
    assert run_cmd(command="true", expname="after", cluster=cluster, run_after="hello").wait().succeeded
    assert main(["logs", "hello", f"--cluster={cluster}"]) == 0
    assert 'it\'s "me" and a  b $HOME in cpu\n' in capsys.readouterr().out
