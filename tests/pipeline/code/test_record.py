"""Which code a run had: its name, the commit, and all that was not committed."""

import json
import subprocess

from skills_pipe.pipeline.code.package import Code, pack
from skills_pipe.pipeline.code.record import read_record, write_record


def recorded(repository, folder):
    folder.mkdir(exist_ok=True)
    write_record(pack(repository.root), folder)
    return read_record(folder)


def test_clean_code_is_told_by_its_commit(repository, tmp_path):
    repository.write("train.py", "old\n")
    repository.commit()
    value = recorded(repository, tmp_path / "run")
    assert value["commit"] == repository.git("rev-parse", "HEAD").strip()
    assert (value["branch"], value["dirty"], value["repository"]) == ("main", False, "my project")
    assert not (tmp_path / "run" / "diff.patch").exists()


def test_the_commit_and_the_diff_give_the_code_back(repository, tmp_path):
    repository.write("train.py", "old\n")
    repository.write("gone.py", "gone\n")
    repository.commit()
    repository.write("train.py", "new\n")
    repository.write("sub/untracked.py", "untracked\n")
    (repository.root / "binary").write_bytes(bytes(range(256)))
    (repository.root / "gone.py").unlink()
    before = repository.git("status", "--porcelain")
    value = recorded(repository, tmp_path / "run")
    assert value["dirty"]
    assert repository.git("status", "--porcelain") == before, "the index is left as it was"
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(repository.root), str(clone)], check=True)
    subprocess.run(["git", "apply", str(tmp_path / "run" / "diff.patch")], cwd=clone, check=True)
    assert pack(clone).hash == value["hash"]


def test_the_diff_is_for_its_owner_only(repository, tmp_path):
    repository.write("train.py")
    recorded(repository, tmp_path / "run")
    assert (tmp_path / "run" / "diff.patch").stat().st_mode & 0o777 == 0o600


def test_a_repository_without_a_commit_has_none(repository, tmp_path):
    repository.write("train.py")
    value = recorded(repository, tmp_path / "run")
    assert (value["commit"], value["branch"], value["dirty"]) == (None, "main", True)


def test_outside_a_repository_there_is_nothing_but_the_name(tmp_path):
    (tmp_path / "run").mkdir()
    code = pack(tmp_path)
    write_record(code, tmp_path / "run")
    value = json.loads((tmp_path / "run" / "code.json").read_text())
    assert value == {
        "hash": code.hash,
        "files": len(code.tree.entries),
        "bytes": code.tree.size,
        "repository": None,
    }


def test_code_of_an_earlier_run_is_recorded_by_its_name(tmp_path):
    write_record(Code(hash="0123"), tmp_path)
    assert read_record(tmp_path) == {"hash": "0123"}


def test_a_run_without_code_of_its_own_has_no_record(tmp_path):
    assert read_record(tmp_path) is None
