"""The small image holds what the launcher's and the engine's programs need, in either kind of container."""

from __future__ import annotations

import multiprocessing
import subprocess
from pathlib import Path

import pytest

from tests.slurm.image import SITE_PACKAGES, ImageError, small_image

ROOT = Path(__file__).resolve().parents[2]
IMPORT = "import torch, transformers, skills_pipe; print(torch.ones(2).sum().item(), skills_pipe.__file__)"
ANSWER = "2.0 /nemo_run/code/skills_pipe/__init__.py\n"


@pytest.mark.slurm
@pytest.mark.slow
def test_our_packages_can_be_imported_through_pyxis(slurm, pyxis):
    mounts = ",".join((*pyxis.mounts, f"{ROOT}:/nemo_run/code:ro"))
    flags = (f"--container-image={pyxis.folder}", f"--container-mounts={mounts}", "--no-container-mount-home")
    step = ("srun", "-N2", *flags, "env", "PYTHONPATH=/nemo_run/code", "python3", "-c", IMPORT)
    assert slurm.run(*step) == ANSWER * 2


@pytest.mark.slurm
@pytest.mark.slow
def test_our_packages_can_be_imported_through_charliecloud(slurm, charliecloud):
    binds = [f"--bind={mount.removesuffix(':ro')}" for mount in charliecloud.mounts]
    inside = ("ch-run", *binds, f"--bind={ROOT}:/nemo_run/code", str(charliecloud.folder), "--")
    # ch-run insists on a USER.
    step = (
        "srun",
        "-N2",
        "--export=ALL,USER=root",
        *inside,
        "env",
        "PYTHONPATH=/nemo_run/code",
        "python3",
        "-c",
        IMPORT,
    )
    assert slurm.run(*step) == ANSWER * 2


@pytest.mark.slurm
@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["pyxis", "charliecloud"])
def test_nodes_know_each_other_by_name(slurm, container_image, runtime, request):
    image = str(request.getfixturevalue(runtime).folder)
    inside = [f"--container-image={image}"] if runtime == "pyxis" else ["ch-run", image, "--"]
    show = "import socket; print(socket.gethostname(), socket.gethostbyname('node2'))"
    step = ("srun", "-w", "node1", "--export=ALL,USER=root", *inside, "python3", "-c", show)
    assert slurm.run(*step) == "node1 127.0.0.1\n"


@pytest.mark.slurm
@pytest.mark.slow
def test_negative_control_the_packages_are_not_the_images_own(slurm, pyxis):
    with pytest.raises(RuntimeError, match="No module named 'torch'"):
        slurm.run("srun", f"--container-image={pyxis.folder}", "python3", "-c", "import torch")


@pytest.mark.slurm
@pytest.mark.slow
def test_python_has_its_usual_names_and_finds_our_packages_by_itself(container_image):
    show = f"import sys; print('{SITE_PACKAGES}' in sys.path)"
    for name in ("python", "python3"):
        inside = ["chroot", str(container_image.folder), name, "-c", show]
        assert subprocess.run(inside, capture_output=True, text=True, check=True).stdout == "True\n"


# The cache


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> Path:
    """A recipe that takes as long as it needs for others to ask meanwhile, and counts how often it was followed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "build"
    lines = ("#!/bin/bash", f"echo built >> {tmp_path}/count", 'mkdir "$1"', "sleep 0.3", 'echo "$SUITE" > "$1/suite"')
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)
    return path


def count(recipe: Path) -> int:
    return len(recipe.with_name("count").read_text().splitlines())


def test_an_image_is_built_once_however_many_ask_for_it(recipe):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        images = pool.map(small_image, [recipe] * 8)
    assert len(set(images)) == 1 and count(recipe) == 1
    assert (images[0].folder / "suite").read_text().strip()


def test_a_changed_recipe_makes_another_image(recipe):
    before = small_image(recipe)
    recipe.write_text(recipe.read_text() + "# changed\n")
    assert small_image(recipe) != before and count(recipe) == 2


def test_half_an_image_is_never_taken_for_one(recipe):
    good = recipe.read_text()
    recipe.write_text(good + "echo 'no mirror' >&2; exit 4\n")
    with pytest.raises(ImageError, match="ended with 4:\nno mirror"):
        small_image(recipe)
    assert not [path for path in (recipe.parent / "cache").rglob("small-*") if not path.name.startswith(".")]
    with pytest.raises(ImageError):
        small_image(recipe)
    assert count(recipe) == 2, "it was tried again"
