"""The same input gives the same data set, until the version of a step says that it does not."""

import json

import pytest

from skills_pipe.training.data.cache.key import STEPS
from skills_pipe.training.data.limit import truncate
from tests.training.data.cache import steps

GOLDEN = json.loads(steps.GOLDEN.read_text())


@pytest.mark.parametrize("step", STEPS)
def test_what_a_step_makes_changes_with_its_version_only(step):
    made = getattr(steps, step)()
    differing = [name for name, value in made.items() if GOLDEN["made"][step].get(name) != value]
    assert not differing, (
        f"{step} of {', '.join(differing)} are other than before; if that was meant, raise STEPS[{step!r}] in "
        "cache/key.py, and: python -m tests.training.data.cache.steps"
    )


def test_the_golden_file_is_of_these_versions():
    assert GOLDEN["versions"] == STEPS
    assert {step: set(made) for step, made in GOLDEN["made"].items()} == {
        step: set(made) for step, made in steps.made().items()
    }


def test_a_step_that_makes_something_else_is_noticed(monkeypatch):
    """The control: another way to shorten documents."""

    def from_the_end(example, limit, *, bos_id):
        whole = truncate(example, limit, bos_id=bos_id)
        return (
            whole
            if whole is example
            else type(whole)(input_ids=example.input_ids[:limit], loss_mask=example.loss_mask[:limit])
        )

    monkeypatch.setattr("skills_pipe.training.data.chunk.truncate", from_the_end)
    made = steps.limits()
    assert made != GOLDEN["made"]["limits"]
    assert made["drop at 1000"] == GOLDEN["made"]["limits"]["drop at 1000"]
