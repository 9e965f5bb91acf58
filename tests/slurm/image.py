"""The small image of containers/small, built once per machine and kept in the user's cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

RECIPE = Path(__file__).resolve().parents[2] / "containers" / "small" / "build"

SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}
"""The release of Debian whose Python can import what was installed for ours."""

SITE_PACKAGES = "/opt/site-packages"
"""Where the image's Python looks for the packages of our environment."""


class ImageError(Exception):
    """The image cannot be built here."""


@dataclass(frozen=True, kw_only=True)
class SmallImage:
    """The image, as a folder.

    Attributes:
        folder: its root. Nothing may be written there.
    """

    folder: Path

    @property
    def mounts(self) -> tuple[str, ...]:
        """For pyxis and cluster configurations: what makes torch and our other dependencies importable inside."""
        return (f"{sysconfig.get_path('purelib')}:{SITE_PACKAGES}:ro",)

    def squashed(self) -> Path:
        """The same as a squashfs file, made when it is first asked for."""
        file = self.folder.with_suffix(".sqsh")
        with _lock(file.parent):
            if not file.exists():
                new = file.with_suffix(f".{os.getpid()}")
                new.unlink(missing_ok=True)
                _run("mksquashfs", str(self.folder), str(new), "-quiet", "-no-progress", "-comp", "gzip")
                new.rename(file)
        return file


def why_no_image() -> str | None:
    """Why the image's Python could not use our packages, None if it can."""
    if sys.version_info[:2] in SUITES:
        return None
    known = " and ".join(".".join(map(str, version)) for version in SUITES)
    return f"Debian has no Python {sys.version_info[0]}.{sys.version_info[1]}, but {known}"


def small_image(recipe: Path = RECIPE) -> SmallImage:
    """The image, built if this machine has none of this recipe yet (14-25 s, 180 MB).

    Raises:
        ImageError: the recipe failed; what it had made is not taken for an image.
    """
    suite = SUITES[sys.version_info[:2]]
    key = hashlib.sha256(recipe.read_bytes() + suite.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "skills_pipe" / "images"
    folder = cache / f"small-{key}"
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(cache):
        if not folder.exists():
            new = cache / f".small-{key}.new"
            shutil.rmtree(new, ignore_errors=True)  # of a build that was killed
            _run(str(recipe), str(new), SUITE=suite)
            new.chmod(0o755)
            new.rename(folder)
    return SmallImage(folder=folder)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One process at a time: those of a suite that runs in parallel."""
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(*argv: str, **variables: str) -> None:
    answer = subprocess.run(argv, env=os.environ | variables, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise ImageError(f"{argv[0]} ended with {answer.returncode}:\n{answer.stderr[-4000:]}")
