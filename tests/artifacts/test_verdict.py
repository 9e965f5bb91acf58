"""A verdict is whole or absent; absent means that the job crashed."""

import pytest

from skills_pipe.artifacts.verdict import Outcome, Verdict


@pytest.mark.parametrize("outcome", Outcome)
def test_a_verdict_survives_its_file(tmp_path, outcome):
    verdict = Verdict(outcome=outcome, step=7, reason="the time limit is near")
    verdict.write(tmp_path / "verdicts" / "sft-0.json")
    assert Verdict.read(tmp_path / "verdicts" / "sft-0.json") == verdict


def test_no_file_is_no_verdict(tmp_path):
    assert Verdict.read(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    "text", ["", "{", '{"outcome": "complete"}', '{"outcome": "fine", "step": 1, "reason": ""}', "[]", "null"]
)
def test_a_damaged_file_is_no_verdict(tmp_path, text):
    (tmp_path / "verdict.json").write_text(text)
    assert Verdict.read(tmp_path / "verdict.json") is None


def test_the_outcome_stands_on_a_line_of_its_own(tmp_path):
    """The batch script of a Slurm job reads it with sed, where there may be no Python."""
    Verdict(outcome=Outcome.COMPLETE, step=7, reason='said "outcome": "failed"').write(tmp_path / "v.json")
    assert '  "outcome": "complete",' in (tmp_path / "v.json").read_text().splitlines()
