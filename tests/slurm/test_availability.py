"""Where something is missing the tests that need it say so; in CI they fail."""

from __future__ import annotations

import pytest

from tests.slurm.availability import need, why_no_slurm, why_not


def test_what_is_missing_is_named_with_the_way_to_get_it():
    reason = why_not("bash", "no-such-program", "no-other")
    assert reason == "no-such-program, no-other not installed (scripts/system-packages installs it)"
    assert why_not("bash") is None


def test_daemons_are_found_where_the_path_of_a_user_does_not_lead(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert why_not("ldconfig") is None


def test_a_test_is_skipped_with_the_reason(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="x not installed"):
        need("x not installed")


def test_in_ci_it_fails(monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="x not installed"):
        need("x not installed")


def test_negative_control_nothing_happens_without_a_reason(monkeypatch):
    monkeypatch.setenv("CI", "true")
    assert need(None) is None


def test_slurm_needs_root(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert why_no_slurm() == "the daemons of Slurm need root here"
