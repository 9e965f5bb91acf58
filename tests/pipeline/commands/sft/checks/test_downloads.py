"""``ns nemo_rl sft`` with data on the hub, for a cluster whose jobs may or may not reach it."""

from pathlib import Path

import pytest

from skills_pipe.pipeline.cli import main


@pytest.fixture
def dry_run(tmp_path, monkeypatch, capsys):
    """Says what a dry run tells; ``HF_HOME`` of the jobs is ``<tmp_path>/hf`` on the cluster."""
    monkeypatch.chdir(tmp_path)
    # The hub of this test does not answer.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    (tmp_path / "hf" / "hub" / "models--org--open").mkdir(parents=True)

    def run(*words: str, offline: bool) -> str:
        variables = ["HF_HOME=/workspace/hf", *(["HF_HUB_OFFLINE=1"] if offline else [])]
        config = Path("cluster.yaml")
        config.write_text(
            f"executor: slurm\naccount: me\njob_dir: {tmp_path}/jobs\npartition: gpu\ncpu_partition: cpu\n"
            f"containers: {{nemo-rl: {tmp_path}/image.sqsh}}\nmounts: ['{tmp_path}:/workspace']\n"
            f"env_vars: {variables}\n"
        )
        options = ["--output_dir=/workspace/run", "--hf_model=org/open", "--num_gpus=1", "--disable_wandb"]
        code = main(["nemo_rl", "sft", f"--cluster={config.resolve()}", *options, *words, "--dry_run"])
        told = capsys.readouterr()
        return f"{code}\n{' '.join((told.out + told.err).split())}"

    return run


@pytest.mark.parametrize(
    "words", [["--training_data=squad"], ["--training_data=/workspace/d.jsonl", "++data.val_data_path=rajpurkar/squad"]]
)
def test_offline_jobs_must_have_it_in_their_cache(dry_run, tmp_path, words):
    (tmp_path / "d.jsonl").write_text('{"input": "a", "output": "b"}\n')
    missing = "the data set rajpurkar/squad is not in the cache of the jobs, and HF_HUB_OFFLINE is set for them"
    told = dry_run(*words, offline=True)
    assert missing in told
    assert f"where there is a connection: HF_HOME={tmp_path}/hf hf download --repo-type dataset rajpurkar/squad" in told
    (tmp_path / "hf" / "hub" / "datasets--rajpurkar--squad").mkdir()
    assert missing not in dry_run(*words, offline=True)


def test_jobs_that_may_download_say_so(dry_run):
    told = dry_run("--training_data=squad", offline=False)
    assert "the first job downloads rajpurkar/squad" in told
    assert "is not in the cache" not in told


def test_downloads_in_a_folder_of_their_own_are_left_alone(dry_run):
    told = dry_run("--training_data=squad", "++data.train.download_dir=/workspace/downloads", offline=True)
    assert "is not in the cache" not in told
