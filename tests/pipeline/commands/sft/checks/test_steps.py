"""Checkpoints that are to be converted or averaged and will not be there, told before the queue."""

import pytest

from tests.pipeline.commands.sft.checks.findings import texts, training_findings

pytestmark = pytest.mark.usefixtures("wandb_key")


@pytest.mark.parametrize(
    ("extras", "changes", "told"),
    [
        (("++sft.max_num_steps=200",), {"average_steps": "100,300"}, "error: step 300 is never reached"),
        (("++sft.max_num_steps=200",), {"average_steps": "100,150"}, "error: step 150 is not saved"),
        (("++sft.max_num_epochs=2",), {"average_steps": "100,150"}, "warning: step 150 is not saved"),
        (
            ("++sft.max_num_steps=200", "++checkpointing.save_period=0"),
            {"average_steps": "100,200"},
            "error: step 100 is not saved: checkpoints are saved at the end only",
        ),
        (("++sft.max_num_steps=200",), {"conversion_step": "250"}, "error: step 250 is never reached"),
        (
            ("++sft.max_num_steps=5000", "++checkpointing.keep_top_k=10", "++checkpointing.keep_steps=[5000]"),
            {"average_steps": "100,5000"},
            "warning: step 100 may be deleted before it is needed",
        ),
    ],
)
def test_steps_that_will_not_be_there_are_told(extras, changes, told):
    assert told in texts(training_findings(*extras, **changes))


@pytest.mark.parametrize("steps", ["100,200", "100,250"])
def test_multiples_of_the_period_and_the_last_step_are_there(steps):
    last = steps.split(",")[-1]
    assert training_findings(f"++sft.max_num_steps={last}", average_steps=steps) == []


def test_without_training_nothing_is_known_of_steps():
    assert training_findings(num_training_jobs=0, average_steps="7,8") == []
