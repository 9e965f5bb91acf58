"""What counts as the same input."""

from __future__ import annotations

import os

import pytest

from skills_pipe.artifacts import manifest
from skills_pipe.artifacts.identity import Identity
from skills_pipe.artifacts.names import ENV_IDENTITY
from skills_pipe.pipeline.decisions.fingerprint import covers, fingerprint, is_hub_id


@pytest.fixture
def identity(tmp_path, monkeypatch) -> Identity:
    """The identity that outputs sealed in this test get."""
    import json

    made = Identity.of(options={"x": 1}, inputs={})
    (tmp_path / "identity").write_text(json.dumps(made.to_json()))
    monkeypatch.setenv(ENV_IDENTITY, str(tmp_path / "identity"))
    return made


def test_nothing_has_no_fingerprint(tmp_path):
    assert fingerprint(tmp_path / "none") is None
    assert fingerprint(tmp_path / "*.jsonl") is None


def test_a_plain_file_is_known_by_size_and_time(tmp_path):
    path = tmp_path / "data"
    path.write_text("one")
    before = fingerprint(path)
    assert before == f"file:3:{path.stat().st_mtime_ns}"
    os.utime(path, ns=(1, 1))
    assert fingerprint(path) == "file:3:1"


def test_a_plain_folder_is_known_by_its_files(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("one")
    before = fingerprint(folder)
    assert before.startswith("folder:") and fingerprint(folder) == before
    os.utime(folder / "sub" / "a", ns=(1, 1))
    changed = fingerprint(folder)
    (folder / "sub" / "a").rename(folder / "sub" / "b")
    assert len({before, changed, fingerprint(folder)}) == 3


def test_what_a_stage_made_is_known_by_its_identity_wherever_in_it(tmp_path, identity):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("one")
    manifest.seal(folder, kind="hf_model")
    expected = f"stage:{identity.digest}"
    assert [fingerprint(path) for path in (folder, folder / "sub", folder / "sub" / "a")] == [expected] * 3


def test_what_others_put_into_a_sealed_folder_is_not_of_its_stage(tmp_path, identity):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_text("one")
    manifest.seal(folder, kind="hf_model")
    (folder / "b").write_text("mine")
    (folder / "mine").mkdir()
    assert fingerprint(folder / "b").startswith("file:")
    assert fingerprint(folder / "mine").startswith("folder:")


def test_a_part_with_a_manifest_of_its_own_is_of_the_stage(tmp_path, identity, monkeypatch):
    step = tmp_path / "checkpoints" / "step_1"
    step.mkdir(parents=True)
    (step / "a").write_text("one")
    manifest.seal(step, kind="checkpoint")
    manifest.seal(tmp_path / "checkpoints", kind="training")
    assert fingerprint(step) == fingerprint(step / "a") == f"stage:{identity.digest}"


def test_a_link_that_leads_nowhere_does_no_harm(tmp_path):
    (tmp_path / "model").mkdir()
    before = fingerprint(tmp_path / "model")
    (tmp_path / "model" / ".#config.json").symlink_to("nowhere")
    assert fingerprint(tmp_path / "model") != before


def test_what_was_sealed_by_hand_is_known_by_its_contents(tmp_path):
    path = tmp_path / "data"
    path.write_text("one")
    sealed = manifest.seal(path, kind="sft_data")
    os.utime(path, ns=(1, 1))
    assert fingerprint(path) == f"content:{sealed.digest}"


def test_a_manifest_of_another_program_is_none(tmp_path):
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"name": "app"}')
    assert fingerprint(folder).startswith("folder:")
    assert fingerprint(folder / "manifest.json").startswith("file:")


def test_a_pattern_stands_for_all_that_it_matches(tmp_path):
    for name in ("rs0", "rs1", "other"):
        (tmp_path / name).write_text(name)
    before = fingerprint(tmp_path / "rs*")
    (tmp_path / "other").write_text("changed")
    assert fingerprint(tmp_path / "rs*") == before
    (tmp_path / "rs2").write_text("new")
    assert fingerprint(tmp_path / "rs*") != before


@pytest.mark.parametrize("name", ["meta-llama/Llama-3.1-8B", "openai/gsm8k", "a/b"])
def test_ids_of_the_hub(name):
    assert is_hub_id(name)


@pytest.mark.parametrize("name", ["/a/b", "./a/b", "../a", "a", "a/b/c", "~/a", "a/", "/", "", "a b/c"])
def test_paths_are_no_ids_of_the_hub(name):
    assert not is_hub_id(name)


def test_an_output_covers_what_lies_in_it_and_no_neighbour():
    assert covers("/out", "/out") and covers("/out", "/out/a")
    assert not covers("/out", "/out2/a") and not covers("/out/a", "/out")
