"""A missing key of Weights & Biases, told before the queue."""

from tests.pipeline.commands.sft.checks.findings import texts, training_findings


def test_a_missing_key_of_weights_and_biases_is_told(monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert "error: jobs log to Weights & Biases, and WANDB_API_KEY is not set" in texts(
        training_findings(wandb_project="mine")
    )
    assert "warning: nothing is sent to Weights & Biases: WANDB_API_KEY" in texts(training_findings())
    assert training_findings(disable_wandb=True) == []
    monkeypatch.setenv("WANDB_API_KEY", "w")
    assert training_findings() == []
