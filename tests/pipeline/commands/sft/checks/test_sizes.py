"""A dry run tells the layout of ranks that parallel sizes, nodes and GPUs make together."""

import pytest

from skills_pipe.pipeline.cli import main


@pytest.fixture
def dry_run(tmp_path, monkeypatch, capsys):
    """Says what a dry run of 2 nodes with 4 GPUs each, or what ``words`` say instead, tells."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "cluster.yaml").write_text(
        f"executor: slurm\naccount: me\njob_dir: {tmp_path}/jobs\npartition: gpu\ncpu_partition: cpu\n"
        f"containers: {{nemo-rl: {tmp_path}/image.sqsh}}\nmounts: ['{tmp_path}:/workspace']\n"
        "env_vars: [HF_HOME=/workspace/hf]\n"
    )
    options = ["--output_dir=/workspace/run", "--hf_model=org/open", "--training_data=/workspace/d.jsonl"]
    (tmp_path / "d.jsonl").write_text('{"input": "a", "output": "b"}\n')

    def run(*words: str) -> str:
        here = f"--cluster={tmp_path}/cluster.yaml"
        main(["nemo_rl", "sft", here, "--num_gpus=4", "--num_nodes=2", *options, *words, "--dry_run"])
        told = capsys.readouterr()
        return " ".join((told.out + told.err).replace("│", "").replace("└──", "").split())

    return run


def test_the_plan_says_how_ranks_share_the_work(dry_run):
    told = dry_run("++policy.tensor_model_parallel_size=2")
    assert "8 ranks: shard 4 x tensor 2, data parallel 4; a step has" in told
    # The controls: one rank shares nothing, and sizes that do not divide make no layout.
    assert "a step has" not in dry_run("--num_gpus=1", "--num_nodes=1")
    wrong = dry_run("++policy.tensor_model_parallel_size=3")
    assert "a step has" not in wrong and "8 ranks cannot be divided into groups of 3" in wrong
