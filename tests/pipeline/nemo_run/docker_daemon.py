"""A Docker daemon of the tests' own: one socket, one folder, no network, gone with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.pipeline.programs import until

IMAGE = "small:1"


def why_no_docker() -> str | None:
    """Why no daemon can be started here, None when one can."""
    if os.geteuid() != 0:
        return "dockerd needs root here"
    missing = [program for program in ("dockerd", "docker") if shutil.which(program) is None]
    return f"{', '.join(missing)} not installed (apt-get install docker.io)" if missing else None


class DockerDaemon:
    """A daemon that runs while it is entered, and has one image."""

    def __init__(self, image: Path) -> None:
        self._image = image
        self._base = Path(tempfile.mkdtemp(prefix="docker-", dir="/tmp"))

    @property
    def host(self) -> str:
        """Value for DOCKER_HOST."""
        return f"unix://{self._base}/docker.sock"

    def __enter__(self) -> DockerDaemon:
        folders = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "pid"}
        self._process = subprocess.Popen(
            [
                "dockerd",
                *("--iptables=false", "--ip-forward=false", "--ip-masq=false", "--bridge=none"),
                *(f"{flag}={self._base}/{name}" for flag, name in folders.items()),
                f"--host={self.host}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=(self._base / "log").open("wb"),
        )
        try:
            until(lambda: self.run("version", check=False), "the Docker daemon answers")
            with subprocess.Popen(["tar", "-C", str(self._image), "-c", "."], stdout=subprocess.PIPE) as archive:
                self.run("import", "-", IMAGE, stdin=archive.stdout)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # It leaves its network namespace mounted.
        for mount in (self._base / "exec/netns").glob("*"):
            subprocess.run(["umount", "--lazy", str(mount)], check=False)
        shutil.rmtree(self._base, ignore_errors=True)

    def run(self, *words: str, check: bool = True, stdin: object = subprocess.DEVNULL) -> str:
        """What the command ``docker`` prints."""
        argv = ["docker", "--host", self.host, *words]
        answer = subprocess.run(argv, stdin=stdin, capture_output=True, text=True, check=False, timeout=120)  # type: ignore[call-overload]
        if check and answer.returncode != 0:
            raise RuntimeError(f"docker {' '.join(words)}: {answer.stderr}")
        return answer.stdout if answer.returncode == 0 else ""

    def containers(self) -> list[str]:
        """Names of all containers."""
        return self.run("ps", "--all", "--format", "{{.Names}}").split()
