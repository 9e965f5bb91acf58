"""The small image holds what the launcher's and the engine's programs need, in either kind of container."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.slurm.image import SITE_PACKAGES

ROOT = Path(__file__).resolve().parents[2]
IMPORT = "import torch, transformers, skills_pipe; print(torch.ones(2).sum().item(), skills_pipe.__file__)"
ANSWER = "2.0 /nemo_run/code/skills_pipe/__init__.py\n"

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_our_packages_can_be_imported_through_pyxis(slurm, pyxis):
    mounts = ",".join((*pyxis.mounts, f"{ROOT}:/nemo_run/code:ro"))
    flags = (f"--container-image={pyxis.folder}", f"--container-mounts={mounts}", "--no-container-mount-home")
    step = ("srun", "-N2", *flags, "env", "PYTHONPATH=/nemo_run/code", "python3", "-c", IMPORT)
    assert slurm.run(*step) == ANSWER * 2


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


def test_negative_control_the_packages_are_not_the_images_own(slurm, pyxis):
    with pytest.raises(RuntimeError, match="No module named 'torch'"):
        slurm.run("srun", f"--container-image={pyxis.folder}", "python3", "-c", "import torch")


def test_python_has_its_usual_names_and_finds_our_packages_by_itself(container_image):
    show = f"import sys; print('{SITE_PACKAGES}' in sys.path)"
    for name in ("python", "python3"):
        inside = ["chroot", str(container_image.folder), name, "-c", show]
        assert subprocess.run(inside, capture_output=True, text=True, check=True).stdout == "True\n"
