"""A package on its way: archived, sent, unpacked whole or not at all."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from skills_pipe.errors import PlanError
from skills_pipe.pipeline.code import package
from skills_pipe.pipeline.code.package import Code, install, pack, unpack_script
from skills_pipe.pipeline.transport.here import Here
from tests.pipeline.code.test_tree import ODD_NAMES


@dataclass
class Counting:
    """The transport to this machine; it remembers how much it was sent."""

    sent: list = field(default_factory=list)

    def run(self, argv, *, stdin=""):
        self.sent.append(len(stdin))
        return Here().run(argv, stdin=stdin)


@pytest.fixture
def job_dir(tmp_path):
    return tmp_path / "job dir"


@pytest.fixture
def code(repository):
    repository.write("train.py", "print('hello')")
    repository.write("run.sh", "#!/bin/sh\n").chmod(0o755)
    for name in ODD_NAMES:
        repository.write(name, name.encode(errors="surrogateescape").hex())
    repository.write("deep/" + "x" * 120 + "/" + "y" * 120 + ".py")
    (repository.root / "link").symlink_to("train.py")
    return pack(repository.root)


def unpacked(code, job_dir):
    return Path(code.folder(str(job_dir)))


def content(folder):
    """Everything in a folder: path -> bytes, or where a link leads, and whether it can be executed."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = ("link", os.readlink(path))  # noqa: PTH115
        elif path.is_file():
            found[str(path.relative_to(folder))] = (path.read_bytes(), os.access(path, os.X_OK))
    return found


def test_what_arrives_is_what_was_packed(code, job_dir):
    install(code, str(job_dir), Here())
    arrived = content(unpacked(code, job_dir))
    assert set(arrived) == {entry.path for entry in code.tree.entries}
    assert pack_again(unpacked(code, job_dir), code) == code.hash
    assert arrived["link"] == ("link", "train.py")
    assert arrived["run.sh"][1]


def pack_again(folder, code):
    """The name of a folder as code, computed without git."""
    from skills_pipe.pipeline.code.digest import digests
    from skills_pipe.pipeline.code.tree import Tree, _entry

    entries = tuple(_entry(entry.path, str(folder / entry.path)) for entry in code.tree.entries)
    return digests(Tree(entries=entries, root=None)).name


def test_it_is_sent_once(code, job_dir):
    transport = Counting()
    install(code, str(job_dir), transport)
    assert [size > 0 for size in transport.sent] == [False, True]
    install(code, str(job_dir), transport)
    assert [size > 0 for size in transport.sent] == [False, True, False]


def test_nobody_can_write_it(code, job_dir):
    install(code, str(job_dir), Here())
    modes = {path: path.lstat().st_mode & 0o222 for path in unpacked(code, job_dir).rglob("*") if not path.is_symlink()}
    assert set(modes.values()) == {0}


def test_many_may_install_it_at_once(code, job_dir):
    code.archive()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: install(code, str(job_dir), Here()), range(8)))
    assert [path.name for path in (job_dir / "code").iterdir()] == [code.hash]
    assert set(content(unpacked(code, job_dir))) == {entry.path for entry in code.tree.entries}


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_an_archive_that_is_cut_leaves_nothing(code, job_dir, part):
    whole = code.archive().read_bytes()
    cut = whole[: int(len(whole) * part) // 512 * 512]
    answer = Here().run(["bash", "-c", unpack_script(code, str(job_dir))], stdin=cut)
    assert not answer.ok
    assert list((job_dir / "code").iterdir()) == []
    install(code, str(job_dir), Here())
    assert unpacked(code, job_dir).is_dir()


def test_an_archive_that_is_cut_between_two_files_leaves_nothing(code, job_dir):
    """To tar it looks whole."""
    whole = code.archive().read_bytes()
    import tarfile

    with tarfile.open(code.archive(), encoding="utf-8", errors="surrogateescape") as archive:
        cut = whole[: archive.getmembers()[5].offset]
    checked = subprocess.run(["tar", "--list", "--file=-"], input=cut, capture_output=True, check=False)
    assert checked.returncode == 0, "the control: tar does not see it"
    assert not Here().run(["bash", "-c", unpack_script(code, str(job_dir))], stdin=cut).ok
    assert list((job_dir / "code").iterdir()) == []


def test_a_file_that_changes_while_it_is_packed_is_noticed(code, repository, job_dir):
    repository.write("train.py", "print('other')")
    with pytest.raises(PlanError, match=r"train\.py has changed while the code was packed: submit again"):
        install(code, str(job_dir), Here())
    assert not list((job_dir / "code").glob("*")) if (job_dir / "code").exists() else True


def test_code_of_an_earlier_run_must_be_there(code, job_dir):
    old = Code(hash=code.hash)
    with pytest.raises(PlanError, match="is not on the cluster any more"):
        install(old, str(job_dir), Here())
    install(code, str(job_dir), Here())
    install(old, str(job_dir), Here())


def test_a_huge_tree_is_refused_before_it_is_read(repository, monkeypatch):
    repository.write("train.py")
    with open(repository.root / "model.bin", "wb") as file:
        file.truncate(10 * 2**40)  # reading it would take an hour
    with pytest.raises(PlanError, match=r"would be 10485\d+ MB.*largest files are model\.bin \(10485760 MB\)"):
        pack(repository.root)
    repository.write(".gitignore", "*.bin\n")
    assert pack(repository.root).hash


def test_archives_are_forgotten_after_a_while(code, repository):
    old = code.archive()
    os.utime(old, (0, 0))
    repository.write("more.py")
    assert pack(repository.root).archive().exists()
    assert not old.exists()


def test_the_package_runs_from_where_it_was_unpacked(tmp_path, job_dir):
    """Outside a repository the installed package is packed; it is whole: its programs start from it."""
    folder = tmp_path / "empty"
    folder.mkdir()
    code = pack(folder)
    install(code, str(job_dir), Here())
    python = shutil.which("python3") or "python3"
    import sys

    program = "import skills_pipe.pipeline.cli, skills_pipe; print(skills_pipe.__file__)"
    ended = subprocess.run(
        [sys.executable or python, "-c", program],
        cwd=unpacked(code, job_dir),
        env={"PYTHONPATH": str(unpacked(code, job_dir)), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.strip() == str(unpacked(code, job_dir) / "skills_pipe" / "__init__.py")


def test_the_limit_is_what_the_documentation_says():
    assert package.LIMIT_BYTES == 200 * 2**20
