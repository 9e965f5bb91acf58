"""An archive and back: the same files; whatever else it may be is told in one line, and leaves nothing behind."""

import io
import json
import os
import shutil
import tarfile
from dataclasses import asdict

import pytest
import yaml

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.artifacts.manifest import FileRecord
from skills_pipe.artifacts.names import MANIFEST
from skills_pipe.training.checkpoint.export import main as export_main
from skills_pipe.training.release.archive.pack import main as pack_main
from skills_pipe.training.release.archive.pack import pack
from skills_pipe.training.release.archive.unpack import main as unpack_main
from skills_pipe.training.release.archive.unpack import unpack
from skills_pipe.training.release.validate import main as validate_main


@pytest.fixture(scope="module")
def archive(model, tmp_path_factory):
    return pack(model, tmp_path_factory.mktemp("archive") / "megatron_gpt_sft.nemo")


def files(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def rewritten(archive, target, change, mode="w"):
    """A copy of an archive whose entries ``change`` has changed: (entry, bytes) -> (entry, bytes), or None."""
    with tarfile.open(archive) as source, tarfile.open(target, mode) as tar:
        for entry in source:
            made = change(entry, source.extractfile(entry).read())
            if made is not None:
                made[0].size = len(made[1])
                tar.addfile(made[0], io.BytesIO(made[1]))
    return target


def refused(archive, output, capsys):
    """What is said of an archive that cannot be used; nothing is left."""
    assert unpack_main([f"--archive={archive}", f"--output={output}"]) == 2
    assert [path.name for path in output.parent.iterdir() if "out" in path.name] == []
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def test_there_and_back_is_the_same_model(model, archive, tmp_path):
    assert files(unpack(archive, tmp_path / "out")) == files(model)


def test_the_trainers_loss_is_the_loss_of_what_comes_back(archive, tmp_path):
    assert validate_main([f"--model={unpack(archive, tmp_path / 'out')}", "--tolerance=1e-7"]) == 0


def test_a_tar_program_unpacks_it_and_the_folder_is_read_too(model, archive, tmp_path):
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "by-hand", filter="data")
    assert files(unpack(tmp_path / "by-hand", tmp_path / "out")) == files(model)


def test_compressed_archives_are_read(model, archive, tmp_path):
    zipped = rewritten(archive, tmp_path / "small.nemo", lambda entry, data: (entry, data), "w:gz")
    assert zipped.stat().st_size < archive.stat().st_size
    assert files(unpack(zipped, tmp_path / "out")) == files(model)


def test_the_conversion_program_takes_archives(model, archive, tmp_path):
    assert export_main([f"--training_folder={archive}", f"--hf_ckpt_path={tmp_path / 'out'}"]) == 0
    assert files(tmp_path / "out") == files(model)


def test_the_same_model_gives_the_same_bytes_wherever_it_lies_and_whenever(model, archive, tmp_path):
    other = shutil.copytree(model, tmp_path / "copied", copy_function=shutil.copyfile)
    os.utime(other / "config.json", (1, 1))
    assert pack(other, tmp_path / "again.nemo").read_bytes() == archive.read_bytes()


def test_the_configuration_comes_first_and_the_archive_is_sealed(archive):
    with tarfile.open(archive) as tar:
        assert tar.getnames()[:2] == ["model_config.yaml", "hf_model/README.md"]
        assert {(entry.uid, entry.mtime, entry.mode) for entry in tar} == {(0, 0, 0o644)}
    sealed = manifests.read(archive)
    assert (sealed.kind, sealed.facts["step"]) == ("archive", 10)
    assert manifests.damage(archive, sealed) == []


def test_the_configuration_has_sizes_template_and_tokens(archive):
    with tarfile.open(archive) as tar:
        config = yaml.safe_load(tar.extractfile("model_config.yaml").read())
    assert (config["num_layers"], config["num_query_groups"], config["kv_channels"]) == (2, 2, 8)
    assert (config["ffn_hidden_size"], config["encoder_seq_length"], config["precision"]) == (64, 512, "bf16")
    assert config["special_tokens"]["stop"] == ["<|im_end|>"]
    assert config["prompt_template"].startswith(
        "<bos><|im_start|>system\n{system message}<|im_end|>\n<|im_start|>user\n"
    )


def test_a_template_is_one_line_of_the_file(archive):
    with tarfile.open(archive) as tar:
        lines = tar.extractfile("model_config.yaml").read().decode().splitlines()
    assert [line.count("{turn 1 user message}") for line in lines if line.startswith("prompt_template:")] == [1]


def test_a_changed_byte_is_found(archive, tmp_path, capsys):
    def change(entry, data):
        if entry.name.endswith(".safetensors"):
            data = data[:-1] + bytes([data[-1] ^ 1])
        return entry, data

    told = refused(rewritten(archive, tmp_path / "bad.nemo", change), tmp_path / "out", capsys)
    assert "bad.nemo is damaged: model.safetensors: the contents changed" in told


@pytest.mark.parametrize("part", [0.9, 0.5, 0.01, 0.0])
def test_an_archive_that_was_cut_short_is_found(archive, tmp_path, capsys, part):
    cut = tmp_path / "cut.nemo"
    cut.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * part)])
    assert "cut.nemo" in refused(cut, tmp_path / "out", capsys)


def test_a_file_that_is_missing_is_found(archive, tmp_path, capsys):
    def change(entry, data):
        return None if entry.name.endswith("tokenizer.json") else (entry, data)

    told = refused(rewritten(archive, tmp_path / "bad.nemo", change), tmp_path / "out", capsys)
    assert "tokenizer.json: missing" in told


@pytest.mark.parametrize("nested", [False, True])
def test_a_file_that_the_model_was_not_sealed_with_is_found(archive, tmp_path, capsys, nested):
    """It would be sealed as a part of the model, and go to the hub with it."""
    bad = shutil.copy(archive, tmp_path / "bad.nemo")
    entry = tarfile.TarInfo("hf_model/code/modeling.py" if nested else "hf_model/notes.txt")
    with tarfile.open(bad, "a") as tar:
        tar.addfile(entry, io.BytesIO())
    told = refused(bad, tmp_path / "out", capsys)
    assert f"{entry.name.removeprefix('hf_model/')}: not of the model" in told


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_archive_that_was_damaged_or_cut_is_found(archive, tmp_path, capsys, mode):
    whole = rewritten(archive, tmp_path / "whole.nemo", lambda entry, data: (entry, data), mode).read_bytes()
    bad, half = tmp_path / "bad.nemo", len(whole) // 2
    for damaged in (whole[:half], whole[:half] + bytes(64) + whole[half + 64 :]):
        bad.write_bytes(damaged)
        assert "bad.nemo" in refused(bad, tmp_path / "out", capsys)


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "hf_model/../../escaped"])
def test_no_entry_leads_out_of_the_folder(archive, tmp_path, capsys, name):
    def change(entry, data):
        if entry.name.endswith("README.md"):
            entry.name = name
        return entry, data

    told = refused(rewritten(archive, tmp_path / "bad.nemo", change), tmp_path / "out", capsys)
    assert "which no archive of a model has" in told
    assert not list(tmp_path.rglob("escaped*"))


def test_no_name_in_the_seal_leads_out_of_the_folder(archive, tmp_path, capsys):
    """Such a file would be sealed as a part of the model, and go to the hub with it."""
    (tmp_path / "secret").write_text("of somebody else")

    def change(entry, data):
        if entry.name == f"hf_model/{MANIFEST}":
            sealed = json.loads(data)
            sealed["files"]["../secret"] = asdict(FileRecord.of(tmp_path / "secret"))
            data = json.dumps(sealed).encode()
        return entry, data

    told = refused(rewritten(archive, tmp_path / "bad.nemo", change), tmp_path / "out", capsys)
    assert "a file outside of itself, '../secret'" in told


def test_what_is_read_is_never_what_is_written(model, archive, tmp_path, capsys):
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "by-hand", filter="data")
    before = files(tmp_path)
    for source in (tmp_path / "by-hand", tmp_path / "by-hand" / "hf_model" / ".."):
        assert unpack_main([f"--archive={source}", f"--output={tmp_path / 'by-hand'}"]) == 2
        assert "lies where the model is to be written" in capsys.readouterr().err
    assert (
        pack_main([f"--model={tmp_path / 'by-hand' / 'hf_model'}", f"--output={tmp_path}/by-hand/hf_model/x.nemo"]) == 2
    )
    assert "lies in the folder of the model" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_links_are_refused(archive, tmp_path, capsys):
    bad = tmp_path / "bad.nemo"
    with tarfile.open(bad, "w") as tar:
        link = tarfile.TarInfo("hf_model/config.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert "which no archive of a model has" in refused(bad, tmp_path / "out", capsys)


def test_archives_of_nemo_itself_are_told_apart(tmp_path, capsys):
    theirs = tmp_path / "theirs.nemo"
    with tarfile.open(theirs, "w") as tar:
        for name in ("./model_config.yaml", "./model_weights/common.pt"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert "weights in Megatron's layout" in refused(theirs, tmp_path / "out", capsys)


def test_a_folder_that_is_no_archive_is_refused(tmp_path, capsys):
    assert "no archive lies at" in refused(tmp_path, tmp_path / "out", capsys)


def test_only_a_whole_model_is_packed(model, tmp_path, capsys):
    other = shutil.copytree(model, tmp_path / "model")
    (other / "config.json").write_text("{}")
    assert pack_main([f"--model={other}", f"--output={tmp_path / 'a.nemo'}"]) == 2
    assert "config.json" in capsys.readouterr().err
    (other / "manifest.json").unlink()
    assert pack_main([f"--model={other}", f"--output={tmp_path / 'a.nemo'}"]) == 2
    assert not (tmp_path / "a.nemo").exists()


def test_an_older_archive_is_replaced_and_anything_else_is_not(model, tmp_path, capsys):
    for _ in range(2):
        assert pack_main([f"--model={model}", f"--output={tmp_path / 'a.nemo'}"]) == 0
    # Killed between its two files: the archive is there, and not sealed.
    (tmp_path / "a.nemo.manifest.json").unlink()
    assert pack_main([f"--model={model}", f"--output={tmp_path / 'a.nemo'}"]) == 0
    assert manifests.read(tmp_path / "a.nemo").kind == "archive"
    (tmp_path / "b.nemo").write_text("thesis")
    for name in ("b.nemo", "c.tar"):
        assert pack_main([f"--model={model}", f"--output={tmp_path / name}"]) == 2
    assert (tmp_path / "b.nemo").read_text() == "thesis"
    assert "is no archive that this program wrote" in capsys.readouterr().err


def test_an_archive_of_nemos_is_not_replaced(model, tmp_path, capsys):
    """``tar -cf theirs.nemo *`` begins with the same name."""
    theirs = tmp_path / "theirs.nemo"
    with tarfile.open(theirs, "w") as tar:
        for name in ("model_config.yaml", "model_weights/common.pt"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    before = theirs.read_bytes()
    assert pack_main([f"--model={model}", f"--output={theirs}"]) == 2
    assert "is no archive that this program wrote" in capsys.readouterr().err
    assert theirs.read_bytes() == before
