"""Recipes of images: they are well formed, and pin the versions that the project is tested with."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
CONTAINERS = ROOT / "containers"
RECIPES = sorted(CONTAINERS.glob("*/Containerfile"))
BASES = {"debian:12-slim", "skills-pipe-train"}
"""Names that every registry or builder knows: no host of a registry is in them."""


def constraints():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def arguments(recipe):
    return dict(re.findall(r"^ARG (\w+)=(\S+)$", recipe.read_text(), re.MULTILINE))


def hadolint(recipe):
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed: it comes with the extra dev")
    return subprocess.run([program, str(recipe)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parent.name)
def test_a_recipe_is_well_formed(recipe):
    checked = hadolint(recipe)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("line", ["RUN cd /x && ls", "FRM x", "RUN pip install torch"])
def test_a_broken_recipe_is_found(tmp_path, line):
    (tmp_path / "Containerfile").write_text(f"FROM debian:12-slim\n{line}\n")
    assert hadolint(tmp_path / "Containerfile").returncode != 0


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.parent.name)
def test_an_image_is_made_from_a_plain_name(recipe):
    assert arguments(recipe)["BASE"] in BASES


def test_versions_are_those_that_the_suite_runs_with():
    pinned = constraints()
    for recipe in RECIPES:
        for name, version in arguments(recipe).items():
            package = name.lower().replace("_", "-")
            if package in pinned:
                assert version == pinned[package], f"{recipe}: {name}"
    assert arguments(CONTAINERS / "train" / "Containerfile")["TORCH"] == pinned["torch"]


def test_megatron_is_of_the_version_that_the_extra_asks_for():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (asked,) = [Requirement(text) for text in extras["megatron"] if text.startswith("megatron-core")]
    assert Version(arguments(CONTAINERS / "megatron" / "Containerfile")["MEGATRON_CORE"]) in asked.specifier


def test_what_is_copied_is_there():
    for recipe in RECIPES:
        for words in re.findall(r"^COPY (.+)$", recipe.read_text(), re.MULTILINE):
            *sources, _ = words.split()
            assert [source for source in sources if not (ROOT / source).exists()] == [], recipe


def test_the_table_tells_the_versions_of_the_recipes():
    table = (CONTAINERS / "README.md").read_text()
    rows = {
        row[0].strip(" `"): "|".join(row) for row in (line.split("|")[1:] for line in table.splitlines() if "|" in line)
    }
    for recipe in RECIPES:
        row = rows[recipe.parent.name]
        versions = [version for name, version in arguments(recipe).items() if name != "BASE"]
        assert [version for version in versions if version not in row] == [], row
        assert "not built yet" in row


def test_every_folder_is_in_the_table():
    table = (CONTAINERS / "README.md").read_text()
    for folder in CONTAINERS.iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert f"`{folder.name}/" in table, folder


def test_scripts_are_shell():
    for script in (CONTAINERS / "enroot" / "import", CONTAINERS / "sandbox" / "start-with-nginx.sh"):
        subprocess.run(["bash", "-n", str(script)], check=True)
        assert script.stat().st_mode & 0o111


# --- the import for enroot, with a stand-in for its program: it writes what the real one would


@pytest.fixture
def enroot(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "enroot"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$4" != docker://bad ] && echo "$4" > "$3"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return lambda *words: subprocess.run(
        [str(CONTAINERS / "enroot" / "import"), *words], capture_output=True, text=True, check=False
    )


def test_an_imported_image_appears_whole(enroot, tmp_path):
    (tmp_path / "images").mkdir()
    file = tmp_path / "images" / "a b.sqsh"
    assert enroot("docker://org/name:tag", str(file)).returncode == 0
    assert file.read_text() == "docker://org/name:tag\n"
    assert list(file.parent.iterdir()) == [file]


def test_an_import_that_fails_leaves_nothing(enroot, tmp_path):
    (tmp_path / "images").mkdir()
    assert enroot("docker://bad", str(tmp_path / "images" / "a.sqsh")).returncode != 0
    assert list((tmp_path / "images").iterdir()) == []


@pytest.mark.parametrize("words", [(), ("docker://a",), ("docker://a", "a.sqsh"), ("docker://a", "/images/a.sif")])
def test_an_import_says_what_it_needs(enroot, words):
    ended = enroot(*words)
    assert ended.returncode == 2
    assert ended.stderr
