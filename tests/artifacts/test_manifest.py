"""A manifest tells whether an output is whole, and what made it."""

import hashlib
import json

import pytest

from skills_pipe.artifacts import manifest
from skills_pipe.artifacts.identity import Identity, digest
from skills_pipe.artifacts.names import ENV_IDENTITY, manifest_path, owner_path
from skills_pipe.errors import CheckpointError


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(bytes(range(256)))
    (folder / "sub" / "config.json").write_text("{}")
    return folder


def test_a_whole_output_has_no_damage(model):
    sealed = manifest.seal(model, kind="hf_model", facts={"step": 3})
    assert manifest.read(model) == sealed
    assert manifest.damage(model, sealed) == []
    assert set(sealed.files) == {"weights.bin", "sub/config.json"}
    assert sealed.facts == {"step": 3}


def _remove(path):
    path.unlink()


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path):
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "words", "by_size"),
    [(_remove, "missing", True), (_cut, "255 bytes, 256 expected", True), (_flip, "the contents changed", False)],
)
def test_damage_is_found_and_named(model, harm, words, by_size):
    sealed = manifest.seal(model, kind="hf_model")
    harm(model / "weights.bin")
    (line,) = manifest.damage(model, sealed)
    assert line == f"{model / 'weights.bin'}: {words}"
    # Sizes alone miss a flipped bit: that is what the hashes are for.
    assert bool(manifest.damage(model, sealed, hashes=False)) is by_size


def test_manifests_with_a_sha256_are_still_read_and_checked(model):
    """Those of the first format."""
    written = {name: (model / name).read_bytes() for name in ("weights.bin", "sub/config.json")}
    files = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in written.items()}
    value = {"format": 1, "kind": "hf_model", "files": files, "identity": None, "facts": {}}
    manifest_path(model).write_text(json.dumps(value))
    sealed = manifest.read(model)
    assert manifest.damage(model, sealed) == []
    # Identities of stages that were made of it hold.
    assert sealed.digest == digest({name: record["sha256"] for name, record in files.items()})
    _flip(model / "weights.bin")
    assert manifest.damage(model, sealed) == [f"{model / 'weights.bin'}: the contents changed"]


def test_an_output_without_a_manifest_is_not_finished(model):
    assert manifest.read(model) is None


def test_a_damaged_manifest_is_an_error_and_not_an_unfinished_output(model):
    manifest.seal(model, kind="hf_model")
    manifest_path(model).write_text('{"kind": "hf_mo')
    with pytest.raises(CheckpointError, match="the manifest is damaged"):
        manifest.read(model)


def test_a_file_is_sealed_beside_itself(tmp_path):
    data = tmp_path / "sft.jsonl"
    data.write_text("{}\n")
    sealed = manifest.seal(data, kind="sft_data")
    assert manifest_path(data) == tmp_path / "sft.jsonl.manifest.json"
    assert manifest.damage(data, sealed) == []
    data.write_text("{ }\n")
    assert manifest.damage(data, sealed) == [f"{data}: 4 bytes, 3 expected"]


def test_a_sealed_folder_inside_is_recorded_by_its_own_manifest(model):
    step = model / "step_1"
    step.mkdir()
    (step / "weights.bin").write_text("x")
    manifest.seal(step, kind="checkpoint")
    sealed = manifest.seal(model, kind="training")
    assert "step_1/manifest.json" in sealed.files
    assert "step_1/weights.bin" not in sealed.files


def test_what_is_not_part_of_an_output_is_left_out(model):
    before = manifest.seal(model, kind="training").digest
    (model / ".tmp-x.host.1").write_text("half")
    (model / "old_step_1").mkdir()
    owner_path(model / "step_2").write_text("{}")
    after = manifest.seal(model, kind="training")
    assert after.digest == before
    (model / "new").write_text("")
    assert manifest.seal(model, kind="training").digest != before


def test_the_digest_is_of_the_contents_alone(model, tmp_path):
    first = manifest.seal(model, kind="hf_model", facts={"a": 1}).digest
    assert manifest.seal(model, kind="training", facts={"a": 2}).digest == first


def test_the_identity_comes_from_the_launcher(model, tmp_path, monkeypatch):
    identity = Identity.of(options={"lr": 1e-3}, inputs={})
    (tmp_path / "identity.json").write_text(json.dumps(identity.to_json()))
    monkeypatch.setenv(ENV_IDENTITY, str(tmp_path / "identity.json"))
    manifest.seal(model, kind="hf_model")
    assert manifest.read(model).identity == identity
