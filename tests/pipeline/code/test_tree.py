"""What belongs to the code: all that git tracks or would offer to add, as it lies there."""

import io
import os
import tarfile
from pathlib import Path

import pytest

import skills_pipe
from skills_pipe.errors import PlanError
from skills_pipe.pipeline.code.tree import working_tree

ODD_NAMES = ["a b.py", "new\nline.py", "é.py", "quote'\".py", "-dash.py", os.fsdecode(b"latin-\xe9.py")]


def own(tree):
    """Paths without the package that is added."""
    return [entry.path for entry in tree.entries if not entry.path.startswith("skills_pipe/")]


def test_uncommitted_and_untracked_files_belong_to_it_ignored_and_deleted_ones_do_not(repository):
    repository.write(".gitignore", "*.log\n/data/\n")
    repository.write("train.py", "old")
    repository.write("gone.py")
    repository.commit()
    repository.write("train.py", "new")
    repository.write("sub/untracked.py")
    repository.write("noise.log")
    repository.write("data/large.bin")
    (repository.root / "gone.py").unlink()
    tree = working_tree(repository.root / "sub")
    assert own(tree) == [".gitignore", "sub/untracked.py", "train.py"]
    assert {entry.path: entry.content() for entry in tree.entries}["train.py"] == b"new"
    assert tree.root == repository.root


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_may_be_anything(repository, name):
    repository.write(name)
    assert own(working_tree(repository.root)) == [name]


def test_links_and_executable_files_stay_what_they_are(repository):
    repository.write("run.sh").chmod(0o755)
    repository.write("plain")
    (repository.root / "link").symlink_to("./plain")
    (repository.root / "broken").symlink_to("/no/such/file")
    found = {entry.path: (entry.mode, entry.content()) for entry in working_tree(repository.root).entries}
    assert found["run.sh"][0] == "100755"
    assert found["plain"][0] == "100644"
    assert found["link"] == ("120000", b"./plain")
    assert found["broken"] == ("120000", b"/no/such/file")


def test_a_link_to_a_folder_is_not_followed(repository):
    repository.write("inner/file")
    (repository.root / "again").symlink_to("inner")
    assert own(working_tree(repository.root)) == ["again", "inner/file"]


def test_submodules_and_repositories_that_lie_about_are_gone_through(repository, tmp_path):
    other = type(repository)(tmp_path / "other")
    other.write("lib.py")
    other.write(".gitignore", "*.tmp\n")
    other.commit()
    repository.git("submodule", "--quiet", "add", str(other.root), "vendor/other")
    repository.commit()
    loose = type(repository)(repository.root / "loose")
    loose.write("clone.py")
    repository.write("vendor/other/changed.py")
    repository.write("vendor/other/noise.tmp")
    assert own(working_tree(repository.root)) == [
        ".gitmodules",
        "loose/clone.py",
        "vendor/other/.gitignore",
        "vendor/other/changed.py",
        "vendor/other/lib.py",
    ]


def test_a_submodule_that_is_not_checked_out_is_left_out(repository, tmp_path):
    other = type(repository)(tmp_path / "other")
    other.write("lib.py")
    other.commit()
    repository.git("submodule", "--quiet", "add", str(other.root), "vendor")
    repository.commit()
    repository.git("submodule", "--quiet", "deinit", "--all", "--force")
    assert own(working_tree(repository.root)) == [".gitmodules"]


@pytest.mark.parametrize("pattern", ["large.bin", "assets", "assets/", "*.bin", "none"])
def test_what_git_archive_leaves_out_is_left_out(repository, pattern):
    repository.write(".gitattributes", f"{pattern} export-ignore\n")
    repository.write("assets/large.bin")
    repository.write("train.py")
    repository.commit()
    kept = own(working_tree(repository.root))
    with tarfile.open(fileobj=io.BytesIO(repository.git("archive", "HEAD", "--format=tar").encode())) as archive:
        archived = [member.name for member in archive if member.isfile()]
    assert kept == sorted(archived)
    assert ("assets/large.bin" in kept) is (pattern == "none")


def test_the_package_is_added_where_the_repository_is_not_its_own(repository):
    repository.write("train.py")
    paths = [entry.path for entry in working_tree(repository.root).entries]
    assert {"skills_pipe/__init__.py", "skills_pipe/training/config/sft.yaml", "train.py"} <= set(paths)
    assert not any("__pycache__" in path or path.endswith(".pyc") for path in paths)


def test_a_repository_with_the_package_keeps_its_own(repository):
    repository.write("skills_pipe/__init__.py", "mine")
    found = [entry for entry in working_tree(repository.root).entries if entry.path.startswith("skills_pipe/")]
    assert [(entry.path, entry.content()) for entry in found] == [("skills_pipe/__init__.py", b"mine")]


def test_outside_a_repository_it_is_the_installed_package_alone(tmp_path):
    (tmp_path / "train.py").write_text("x")
    tree = working_tree(tmp_path)
    assert (tree.root, own(tree)) == (None, [])
    package = Path(skills_pipe.__file__).parent
    assert {entry.path: entry.content() for entry in tree.entries}["skills_pipe/errors.py"] == (
        package / "errors.py"
    ).read_bytes()


def test_what_git_says_is_told(repository):
    (repository.root / ".git" / "HEAD").write_text("nonsense")
    with pytest.raises(PlanError, match=r"git cannot tell what belongs to the code: fatal: .*my project"):
        working_tree(repository.root)
