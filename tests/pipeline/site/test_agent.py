"""The agent: the same answers here, as a program of its own, and under the oldest Python that login nodes have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from skills_pipe.artifacts import manifest
from skills_pipe.artifacts.names import manifest_path, owner_path
from skills_pipe.errors import ClusterConfigError, StoreError
from skills_pipe.pipeline.site.agent import files
from skills_pipe.pipeline.site.site import HERE, AgentThere, Facts, Site, Want, _program
from skills_pipe.pipeline.transport.base import Answer
from skills_pipe.pipeline.transport.here import Here

OLD = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.6.*/bin/python3"))


@dataclass(frozen=True)
class OtherPython:
    """Runs python3 as this interpreter."""

    path: str

    def run(self, argv, *, stdin="") -> Answer:
        return Here().run([self.path if argv[0] == "python3" else argv[0], *argv[1:]], stdin=stdin)


def sites() -> list:
    found = [pytest.param(HERE, id="here"), pytest.param(Site(AgentThere(Here())), id="program")]
    old = [Site(AgentThere(OtherPython(str(path)))) for path in OLD[:1]]
    return found + [pytest.param(site, id="python3.6") for site in old]


@pytest.fixture(params=sites())
def site(request) -> Site:
    return request.param


@pytest.fixture
def folder(tmp_path) -> Path:
    """An output, sealed, with a record of its owner; a file; an empty folder."""
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "sub" / "weights").write_text("ä one")
    manifest.seal(tmp_path / "model", kind="hf_model")
    owner_path(tmp_path / "model").write_text("owner")
    (tmp_path / "rows.jsonl").write_text('{"input": "ä"}\n')
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_facts_about_several_paths_come_in_one_answer(site, folder):
    found = site.facts(
        {
            f"{folder}/model": [Want.OUTPUT],
            f"{folder}/rows.jsonl": [Want.HEAD, Want.FINGERPRINT],
            f"{folder}/empty": [Want.OUTPUT, Want.PLACE],
            f"{folder}/new/deep": [Want.PLACE, Want.OUTPUT],
        }
    )
    model, rows, empty, new = found.values()
    assert (model.kind, model.owner, model.damage) == ("folder", "owner", ())
    assert model.manifest == manifest_path(folder / "model").read_text()
    status = (folder / "rows.jsonl").stat()
    assert (rows.kind, rows.size, rows.head) == ("file", status.st_size, '{"input": "ä"}\n')
    assert rows.fingerprint == f"file:{status.st_size}:{status.st_mtime_ns}"
    assert empty.empty and empty.existing == f"{folder}/empty" and empty.writable and empty.free_bytes > 0
    assert not new.exists and new.existing == str(folder) and new.owner is None and new.manifest is None


def test_without_wishes_only_presence_is_told(site, folder):
    found = site.facts([f"{folder}/model", f"{folder}/none"])
    assert found == {f"{folder}/model": Facts(kind="folder"), f"{folder}/none": Facts()}


def test_a_file_of_another_size_than_its_manifest_says_is_damage(site, folder):
    (folder / "model" / "sub" / "weights").write_text("longer than it was")
    assert site.facts({f"{folder}/model": [Want.OUTPUT]})[f"{folder}/model"].damage == (
        f"{folder}/model/sub/weights: 18 bytes, 6 expected",
    )
    (folder / "model" / "sub" / "weights").unlink()
    assert site.facts({f"{folder}/model": [Want.OUTPUT]})[f"{folder}/model"].damage == (
        f"{folder}/model/sub/weights: missing",
    )


def test_fingerprints_are_the_same_wherever_they_are_taken(site, folder):
    paths = [f"{folder}/{name}" for name in ("model", "model/sub/weights", "rows.jsonl", "empty", "*.jsonl", "none*")]
    wanted = {path: [Want.FINGERPRINT] for path in paths}
    assert site.facts(wanted) == HERE.facts(wanted)
    assert site.facts(wanted)[paths[0]].fingerprint == f"content:{manifest.read(folder / 'model').digest}"


def test_a_name_that_is_no_text_does_no_harm(site, tmp_path):
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT))
    assert site.facts({str(tmp_path): [Want.FINGERPRINT]})[str(tmp_path)].fingerprint.startswith("folder:")


def test_a_file_is_read_from_any_place_of_it(site, tmp_path):
    log = tmp_path / "log"
    assert site.read_tail(str(log), 0).size is None
    log.write_bytes("zwölf\n".encode())
    assert site.read_tail(str(log), 0).data == "zwölf\n".encode()
    # In the middle of a letter of two bytes.
    assert site.read_tail(str(log), 3).data == b"\xb6lf\n"
    end = site.read_tail(str(log), -2)
    assert (end.data, end.offset, end.size) == (b"f\n", 5, 7)
    assert site.read_tail(str(log), -100, limit=2).data == b"zw"
    assert [tail.data for tail in site.read_tails({str(log): 5, f"{log}2": 0}).values()] == [b"f\n", b""]


def test_records_come_once_and_then_only_what_has_changed(site, tmp_path):
    run = tmp_path / "exp" / "run-1"
    site.ask({"do": "make_run", "folder": str(run)})
    (run / "plan.json").write_text("{}")
    (run / "secrets.env").write_text("export TOKEN=x")
    (run / "exits" / "a").write_text("0")
    (run / "exits" / ".tmp-b").write_text("0")
    ask = {"do": "records", "root": str(tmp_path), "runs": ["exp"], "known": {}}
    first = site.ask(ask)[0]
    assert (first["experiments"], first["runs"]) == (["exp"], ["exp/run-1"])
    assert {name: text for name, (_, text) in first["changed"].items()} == {
        "exp/run-1/plan.json": "{}",
        "exp/run-1/exits/a": "0",
    }
    known = {name: state for name, (state, _) in first["changed"].items()}
    (run / "exits" / "a").write_text("75")
    second = site.ask({**ask, "known": known})[0]
    assert sorted(second["present"]) == sorted(first["present"])
    assert [(name, text) for name, (_, text) in second["changed"].items()] == [("exp/run-1/exits/a", "75")]


def test_files_are_written_with_their_mode_from_the_first_byte_on(site, tmp_path):
    path = tmp_path / "sub" / "secrets.env"
    file = {"path": str(path), "text": "ä", "mode": 0o600, "base": None}
    state = site.ask({"do": "write", "files": [file], "removed": {}})[0]["states"][str(path)]
    assert path.read_text() == "ä" and path.stat().st_mode & 0o777 == 0o600
    site.ask({"do": "write", "files": [], "removed": {str(path): state, f"{path}2": None}})
    assert not path.exists()


def test_a_file_that_is_newer_than_the_writer_knows_is_left_alone(site, tmp_path):
    path = tmp_path / "progress.json"
    path.write_text("1")
    seen = [path.stat().st_size, path.stat().st_mtime_ns]
    path.write_text("22")
    mine = {"path": str(path), "text": "333", "mode": 0o644}
    for base in (seen, None, [2, 0]):
        write = {"do": "write", "files": [{**mine, "base": base}], "removed": {str(path): base}}
        assert site.ask(write)[0] == {"states": {}}
        assert path.read_text() == "22"
    # A file system that keeps whole microseconds, or seconds, cuts the rest off.
    for digits in (3, 9):
        now = [path.stat().st_size, path.stat().st_mtime_ns // 10**digits * 10**digits]
        site.ask({"do": "write", "files": [{**mine, "base": now}], "removed": {}})
        assert path.read_text() == "333"


def test_what_cannot_be_done_ends_the_list_and_says_where(site, tmp_path):
    (tmp_path / "file").touch()
    bad = {"path": f"{tmp_path}/file/x", "text": "", "mode": 0o644, "base": None}
    good = {"path": f"{tmp_path}/y", "text": "", "mode": 0o644, "base": None}
    with pytest.raises(StoreError, match=r"/file.* cannot be read or written \("):
        site.ask({"do": "write", "files": [bad], "removed": {}}, {"do": "write", "files": [good], "removed": {}})
    assert not (tmp_path / "y").exists()


def test_a_program_is_told_how_it_ended(site):
    answer = site.ask({"do": "program", "argv": ["sh", "-c", "cat; echo err >&2; exit 3"], "stdin": "ä"})[0]
    assert answer == {"code": 3, "out": "ä", "err": "err\n"}
    assert site.ask({"do": "program", "argv": ["no-such-program"], "stdin": ""})[0]["code"] == 127


def test_names_are_those_of_the_artifacts(folder):
    for name in ("model", "rows.jsonl", "none"):
        assert files.manifest_path(f"{folder}/{name}") == str(manifest_path(folder / name))
        assert files.owner_path(f"{folder}/{name}") == str(owner_path(folder / name))


def test_a_login_node_without_python_is_told(tmp_path):
    with pytest.raises(ClusterConfigError, match=r"no python3 on the login node .*pre_command"):
        Site(AgentThere(OtherPython(f"{tmp_path}/none"))).facts(["/"])


def test_the_agent_needs_nothing_but_the_standard_library(tmp_path):
    """-S: no site-packages; in a folder whose json.py would be found first without -I."""
    (tmp_path / "json.py").write_text("raise RuntimeError")
    python = shutil.which("python3", path="/usr/bin") or shutil.which("python3")
    program = _program(json.dumps([{"do": "look", "questions": {"/": []}}]))
    run = lambda *flags: subprocess.run(  # noqa: E731
        [python, *flags, "-"], input=program, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert json.loads(run("-I", "-S").stdout) == [{"facts": {"/": {"kind": "folder"}}}]
    assert "RuntimeError" in run("-S").stderr


def test_what_can_be_renamed_back_is_though_something_else_cannot(site, folder):
    (answer,) = site.ask(
        {"do": "set_aside", "paths": [str(folder / name) for name in ("empty", "rows.jsonl", "model")]}
    )
    (folder / "old_rows.jsonl.1").unlink()
    with pytest.raises(StoreError, match=r"could not be renamed back: \S*/old_rows.jsonl.1\)"):
        site.ask({"do": "put_back", "moved": answer["moved"]})
    assert (folder / "model" / "sub" / "weights").read_text() == "ä one" and (folder / "empty").is_dir()
    assert not list(folder.glob("old_*"))
