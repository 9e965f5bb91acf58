"""The files from which the daemons of a cluster learn what it is like."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from tests.slurm.spec import ClusterSpec

HOST = "head"
"""Name of the machine of the controller."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a cluster has its files and listens.

    Attributes:
        base: the folder of all its files.
        controller_port: of slurmctld.
        node_ports: of each slurmd, in the order of the nodes.
        accounting_port: of slurmdbd; None without accounting.
        database_port: of the database; None without accounting.
        plugin: the library that gives srun the flags of pyxis; None without.
    """

    base: Path
    controller_port: int
    node_ports: tuple[int, ...]
    accounting_port: int | None = None
    database_port: int | None = None
    plugin: Path | None = None

    @property
    def conf(self) -> Path:
        """Value for SLURM_CONF."""
        return self.base / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        """On which munged answers."""
        return self.base / "munge.sock"


# A job that is requeued waits for the end of its credential first: cred_expire, 120 s by default.
# Job ids differ from those of the clusters beside this one: ranks choose the port on which they meet by them.
# Jobs without a time limit are never backfilled, so each partition has a DefaultTime.
_SLURM = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={munge},cred_expire=5
CredType=cred/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
MpiDefault=none
ReturnToService=2
SlurmdTimeout={timeout}
MessageTimeout={message_timeout}
KillWait=5
MinJobAge={age}
FirstJobId={first}
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1,bf_min_age_reserve=0
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
PlugStackConfig={base}/plugstack.conf
"""

_NODE = (
    "NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=4000 Gres=gpu:{gpus}"
    " State=UNKNOWN\n"
)

_PARTITIONS = """\
PartitionName=DEFAULT Nodes={nodes} DefaultTime=00:10:00 PriorityTier=1 PreemptMode=OFF State=UP
PartitionName=batch Default=YES OverSubscribe=YES:4
PartitionName=cpu OverSubscribe=YES:8
PartitionName=tiny MaxTime=00:05:00 DefaultTime=00:05:00 MaxNodes=1
PartitionName=low PreemptMode=REQUEUE GraceTime={grace}
PartitionName=high PriorityTier=10
"""

_NO_ACCOUNTING = """\
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
"""

# AccountingStoragePass: without it each client looks for munge's usual socket, and that for seconds.
_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={port}
AccountingStoragePass={munge}
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
JobCompType=jobcomp/none
"""

_SLURMDBD = """\
AuthType=auth/munge
AuthInfo=socket={munge}
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
PidFile={base}/slurmdbd.pid
LogFile={base}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
"""


def write_files(spec: ClusterSpec, places: Places) -> None:
    """Write all of them, below ``places.base``."""
    base = places.base
    for folder in ("state", "log", *(f"spool/{name}" for name in spec.names)):
        (base / folder).mkdir(parents=True)
    (base / "munge.key").write_bytes(os.urandom(1024))
    (base / "munge.key").chmod(0o400)
    (base / "slurm.conf").write_text(_slurm_conf(spec, places))
    (base / "gres.conf").write_text(_gpus(spec, base))
    (base / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (base / "plugstack.conf").write_text(_plugins(places))
    ours = socket.gethostname().partition(".")[0]
    (base / "hosts").write_text(f"127.0.0.1 localhost {ours} {HOST} {' '.join(spec.names)}\n")
    if places.accounting_port is not None:
        _write_slurmdbd_conf(places)


def _plugins(places: Places) -> str:
    return f"required {places.plugin} runtime_path={places.base}/containers\n" if places.plugin else ""


def _slurm_conf(spec: ClusterSpec, places: Places) -> str:
    munge, base = places.munge_socket, places.base
    text = _SLURM.format(
        host=HOST,
        port=places.controller_port,
        munge=munge,
        base=base,
        timeout=spec.node_timeout,
        message_timeout=min(spec.node_timeout, 10),
        age=spec.min_job_age,
        first=100 * places.controller_port,
    )
    text += _ACCOUNTING.format(port=places.accounting_port, munge=munge) if spec.accounting else _NO_ACCOUNTING
    for name, port in zip(spec.names, places.node_ports, strict=True):
        text += _NODE.format(name=name, port=port, gpus=spec.gpus)
    return text + _PARTITIONS.format(nodes=",".join(spec.names), grace=spec.grace_time)


def _gpus(spec: ClusterSpec, base: Path) -> str:
    """Slurm takes only device files for GPUs; these are as /dev/null."""
    for number in range(spec.gpus):
        os.mknod(base / f"gpu{number}", 0o20666, os.makedev(1, 3))
    return f"NodeName={','.join(spec.names)} Name=gpu AutoDetect=off File={base}/gpu[0-{spec.gpus - 1}]\n"


def _write_slurmdbd_conf(places: Places) -> None:
    path = places.base / "slurmdbd.conf"
    path.touch(mode=0o600)
    path.write_text(
        _SLURMDBD.format(
            munge=places.munge_socket,
            base=places.base,
            port=places.accounting_port,
            database=places.database_port,
        )
    )
