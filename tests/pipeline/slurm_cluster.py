"""A real Slurm on this machine: munge, a controller, several nodes; all that it writes is in one folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
PACKAGES = "slurm-wlm munge"

_SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=5
MinJobAge=600
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1,bf_min_age_reserve=0
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PriorityType=priority/basic
GresTypes=gpu
PlugStackConfig={base}/plugstack.conf
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
"""
_NODE = (
    "NodeName=node{number} NodeHostname=node{number} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=4000 Gres=gpu:2"
    " State=UNKNOWN\n"
)
_PARTITIONS = """\
PartitionName=batch Nodes=node[1-{nodes}] Default=YES DefaultTime=00:10:00 OverSubscribe=YES:4 State=UP
PartitionName=cpu Nodes=node[1-{nodes}] DefaultTime=00:10:00 OverSubscribe=YES:8 State=UP
"""

# Each node has a name of its own that resolves, as ranks expect which look for the first of them.
_AS_NODE = (
    *("--uts", "--mount", "--propagation", "slave", "bash", "-c"),
    'hostname "$0" && mount --bind "$1" /etc/hosts && PATH="$PATH:/usr/sbin:/sbin" exec slurmd -D -N "$0" -f "$2"',
)


def why_not() -> str | None:
    """Why no Slurm can be started here, None when one can."""
    missing = [program for program in PROGRAMS if _which(program) is None]
    if missing:
        return f"{', '.join(missing)} not installed (apt-get install {PACKAGES})"
    return None if os.geteuid() == 0 else "the daemons of Slurm need root here"


@dataclass(kw_only=True)
class SlurmCluster:
    """A cluster that runs while it is entered."""

    nodes: int = 2
    base: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp")))
    _daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def conf(self) -> Path:
        """Value for SLURM_CONF."""
        return self.base / "slurm.conf"

    def __enter__(self) -> SlurmCluster:
        try:
            self._write()
            files = {"key": "munge.key", "socket": "munge.sock", "pid": "munged.pid", "seed": "munge.seed"}
            options = {"--socket" if name == "socket" else f"--{name}-file": file for name, file in files.items()}
            self._start("munged", "--foreground", *(f"{flag}={self.base}/{file}" for flag, file in options.items()))
            self._until(["munge", "-S", f"{self.base}/munge.sock", "-n"], lambda out: bool(out))
            self._start("slurmctld", "-D", "-f", str(self.conf))
            for number in range(1, self.nodes + 1):
                self._start("unshare", *_AS_NODE, f"node{number}", str(self.base / "hosts"), str(self.conf))
            self._until(
                ["sinfo", "-h", "-N", "-p", "batch", "-o", "%t"], lambda out: out.split() == ["idle"] * self.nodes
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        subprocess.run(["scancel", "--user=root"], env=self._env, check=False, capture_output=True, timeout=20)
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.base, ignore_errors=True)

    @property
    def _env(self) -> dict[str, str]:
        return os.environ | {"SLURM_CONF": str(self.conf)}

    def _write(self) -> None:
        self.base.chmod(0o755)
        for name in ("state", "log", *(f"spool/node{number}" for number in range(1, self.nodes + 1))):
            (self.base / name).mkdir(parents=True)
        (self.base / "munge.key").write_bytes(os.urandom(1024))
        (self.base / "munge.key").chmod(0o400)
        (self.base / "plugstack.conf").touch()
        for number in range(2):
            # Slurm only takes device files for GPUs; these are as /dev/null.
            os.mknod(self.base / f"gpu{number}", 0o20666, os.makedev(1, 3))
        ports = _free_ports(self.nodes + 1)
        host = socket.gethostname().partition(".")[0]
        text = _SLURM_CONF.format(base=self.base, host=host, port=ports[0])
        for number in range(1, self.nodes + 1):
            text += _NODE.format(number=number, port=ports[number])
        self.conf.write_text(text + _PARTITIONS.format(nodes=self.nodes))
        (self.base / "gres.conf").write_text(
            f"NodeName=node[1-{self.nodes}] Name=gpu AutoDetect=off File={self.base}/gpu[0-1]\n"
        )
        names = "".join(f" node{number}" for number in range(1, self.nodes + 1))
        (self.base / "hosts").write_text(f"127.0.0.1 localhost {host}{names}\n")
        (self.base / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")

    def _start(self, program: str, *words: str) -> None:
        path = _which(program) or program
        with open(self.base / "log" / "daemons.log", "ab") as log:
            daemon = subprocess.Popen([path, *words], env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._daemons.append(daemon)

    def _until(self, argv: list[str], ready) -> None:
        deadline = time.monotonic() + 30
        while True:
            answer = subprocess.run(argv, env=self._env, capture_output=True, text=True, check=False, timeout=30)
            if answer.returncode == 0 and ready(answer.stdout):
                return
            if time.monotonic() > deadline:
                logs = "\n".join(f"== {log.name}\n{log.read_text()[-2000:]}" for log in (self.base / "log").iterdir())
                raise RuntimeError(f"{argv[0]} never came up\n{logs}")
            time.sleep(0.05)


def _which(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
