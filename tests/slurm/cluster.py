"""A real Slurm on this machine: munge, a controller, several nodes, accounting if asked for.

All that it writes is in one folder of its own, and nothing of it is left when it has been left.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.slurm.accounting import SETUP, database_argv, install_argv, ping_argv
from tests.slurm.availability import why_no_plugin
from tests.slurm.disk import free_disk, make_disk
from tests.slurm.files import HOST, Places, write_files
from tests.slurm.machine import Machine
from tests.slurm.ports import Ports
from tests.slurm.pyxis.library import build_library
from tests.slurm.reaper import Reaper
from tests.slurm.spec import ClusterSpec


class SlurmCluster:
    """A cluster that runs while it is entered.

    Attributes:
        spec: what it is like.
        base: the folder of all its files; ``base / "log"`` has the logs of its daemons.
    """

    def __init__(self, spec: ClusterSpec | None = None) -> None:
        self.spec = spec or ClusterSpec()
        # In /tmp whatever TMPDIR says: the path of a socket is short.
        self.base = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self._ports = Ports()
        self._machines: dict[str, Machine] = {}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def conf(self) -> Path:
        """Value for SLURM_CONF."""
        return self._places.conf

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes."""
        return self.spec.names

    @property
    def environment(self) -> dict[str, str]:
        """For programs that talk to this cluster."""
        return os.environ | {"SLURM_CONF": str(self.conf)}

    def __enter__(self) -> SlurmCluster:
        self._reaper = Reaper(self.base)
        try:
            self.base.chmod(0o755)
            self._places = self._take_places()
            write_files(self.spec, self._places)
            self._start_munge()
            if self.spec.accounting:
                self._start_accounting()
            self.start_controller()
            for name in self.nodes:
                self.start_node(name)
            self.until_idle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._reaper.reap()
        for machine in self._machines.values():
            machine.kill()
        self._ports.give_back()

    def run(self, *argv: str, check: bool = True, timeout: float = 60) -> str:
        """What a program prints that talks to this cluster."""
        answer = subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, check=False, timeout=timeout
        )
        if check and answer.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)} ended with {answer.returncode}: {answer.stderr}")
        return answer.stdout

    def states(self) -> dict[str, str]:
        """State of each node in the words of sinfo: idle, alloc, mix, down, ..."""
        lines = self.run("sinfo", "-h", "-N", "-p", "batch", "-o", "%N %T").splitlines()
        return {name: state for name, _, state in (line.partition(" ") for line in lines)}

    def until_idle(self) -> None:
        """Wait until all nodes are up and nothing runs on them."""
        self._until(lambda: set(self.states().values()) == {"idle"}, "idle nodes")

    def reset(self) -> None:
        """Make it as it was in the beginning, whatever a test has left: all on, no jobs, idle nodes."""
        if self._controller.poll() is not None:
            self.start_controller()
        for name in self.nodes:
            if name not in self._machines or self._daemons[name].poll() is not None:
                self.start_node(name)
        if self.run("squeue", "-h"):
            self.run("scancel", "--user=root")
        for name, state in self.states().items():
            if state.startswith(("down", "drain")):
                self.run("scontrol", "update", f"NodeName={name}", "State=RESUME", check=False)
        self.until_idle()

    def kill_controller(self) -> None:
        """SIGKILL to slurmctld, once all that it knows now is on disk.

        It saves what changes within seconds. Killed before that, it starts a running job once more when it is back.
        """
        asked = time.time()
        self.run("scontrol", "reconfigure")
        saved = self.base / "state" / "job_state"
        self._until(lambda: saved.exists() and saved.stat().st_mtime > asked, "the saved state")
        self._controller.kill()
        self._controller.wait()

    def start_controller(self) -> None:
        """Start slurmctld; it goes on from its saved state. Returns when it answers."""
        self._controller = self._start(HOST, "slurmctld", "-D", "-f", str(self.conf))
        self._until(lambda: "UP" in self.run("scontrol", "ping", check=False), "the controller")

    def restart_controller(self) -> None:
        """Kill and start it."""
        self.kill_controller()
        self.start_controller()

    def kill_node(self, name: str) -> None:
        """Cut a node's power: SIGKILL to slurmd, to the steps and to all that they run.

        The controller finds out after ``spec.node_timeout``; ``report_down`` tells it at once.
        """
        self._machines.pop(name).kill()

    def start_node(self, name: str) -> None:
        """Start a node. It is usable as soon as ``states()`` says so."""
        self._daemons[name] = self._start(name, "slurmd", "-D", "-N", name, "-f", str(self.conf))

    def report_down(self, name: str) -> None:
        """Tell the controller that a node is down, as it would find out by itself."""
        self.run("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=test")

    def pids_on(self, name: str) -> list[int]:
        """Of all that runs on a node, jobs included."""
        return self._machines[name].pids() if name in self._machines else []

    def pids(self) -> list[int]:
        """Of all that runs on its machines."""
        return [pid for machine in self._machines.values() for pid in machine.pids()]

    def small_disk(self, *, megabytes: int) -> Path:
        """A folder, seen here and on all nodes, on a disk of its own that is soon full."""
        folder = Path(tempfile.mkdtemp(prefix="disk-", dir=self.base))
        device = make_disk(folder.with_suffix(".ext4"), megabytes=megabytes)
        subprocess.run(["mount", device, str(folder)], check=True)
        # The nodes have copies of our mounts from when they were started; they get this one, too.
        for name in self._machines:
            if self._start(name, "mountpoint", "--quiet", str(folder)).wait() != 0:
                self._start(name, "mount", device, str(folder)).wait()
        free_disk(device)
        return folder

    @contextlib.contextmanager
    def with_file(self, content: str, *, at: Path) -> Iterator[None]:
        """A file that all nodes have for a while at the place of another one; here nothing changes."""
        source = Path(tempfile.mkdtemp(prefix="file-", dir=self.base)) / at.name
        source.write_text(content)
        self._on_nodes("mount", "--bind", str(source), str(at))
        try:
            yield
        finally:
            self._on_nodes("umount", str(at))

    def _on_nodes(self, *argv: str) -> None:
        codes = [self._start(name, *argv).wait() for name in self.nodes]
        if any(codes):
            raise RuntimeError(f"{' '.join(argv)} failed on a node\n{self._logs()}")

    def _take_places(self) -> Places:
        accounting = self.spec.accounting
        return Places(
            base=self.base,
            controller_port=self._ports.take(),
            node_ports=tuple(self._ports.take() for _ in self.nodes),
            accounting_port=self._ports.take() if accounting else None,
            database_port=self._ports.take() if accounting else None,
            plugin=build_library(self.base) if self.spec.containers and not why_no_plugin() else None,
        )

    def _start(self, machine: str, *argv: str) -> subprocess.Popen[bytes]:
        if machine not in self._machines:
            new = Machine(machine, hosts=self.base / "hosts", log=self.base / "log" / f"{machine}.log")
            self._machines[machine] = new
            self._reaper.watch(new)
        return self._machines[machine].start(*argv, variables={"SLURM_CONF": str(self.conf)})

    def _start_munge(self) -> None:
        files = {"--key-file": "munge.key", "--pid-file": "munged.pid", "--seed-file": "munge.seed"}
        options = [f"{flag}={self.base / file}" for flag, file in files.items()]
        socket = str(self._places.munge_socket)
        self._start(HOST, "munged", "--foreground", f"--socket={socket}", *options)
        self._until(lambda: self.run("munge", "-S", socket, "-n", check=False), "munge")

    def _start_accounting(self) -> None:
        self.run(*install_argv(self._places))
        self._start(HOST, *database_argv(self._places))
        self._until(lambda: self.run(*ping_argv(self._places), check=False), "the database")
        self._start(HOST, "slurmdbd", "-D")
        self._until(lambda: "Cluster" in self.run("sacctmgr", "show", "cluster", check=False), "slurmdbd")
        for words in SETUP:
            self.run("sacctmgr", "-i", *words)

    def _until(self, ready: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} never came up\n{self._logs()}")
            time.sleep(0.02)

    def _logs(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()[-2000:]}" for log in (self.base / "log").iterdir())
