"""The database of a cluster that keeps accounts, and who may run what there."""

from __future__ import annotations

from tests.slurm.files import Places

ACCOUNT = "research"
"""An account besides ``root``, which jobs have that name none."""

QOS = "small"
"""A quality of service that allows two jobs at a time, queued ones included."""

SETUP = (
    ("add", "cluster", "test"),
    ("add", "account", ACCOUNT, "Cluster=test"),
    ("add", "user", "root", f"Account={ACCOUNT}"),
    ("add", "qos", QOS, "MaxSubmitJobsPerUser=2"),
    ("modify", "user", "root", "set", f"qos+=normal,{QOS}"),
)
"""Words for sacctmgr, once slurmdbd answers."""


# Nothing here is worth a flush to disk, or much room: it goes with the cluster.
_QUICK = ("--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=8M")


def install_argv(places: Places) -> tuple[str, ...]:
    """Makes the database's own tables, among them that of procedures, of which slurmdbd has some."""
    own = ("--skip-test-db", "--auth-root-authentication-method=normal")
    return ("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={places.base}/database", *own, *_QUICK)


def database_argv(places: Places) -> tuple[str, ...]:
    """The database server. It asks nobody for a password, and listens on 127.0.0.1 only."""
    return (
        "mariadbd",
        "--no-defaults",
        "--user=root",
        "--skip-grant-tables",
        f"--datadir={places.base}/database",
        f"--socket={places.base}/database.sock",
        f"--pid-file={places.base}/database.pid",
        "--bind-address=127.0.0.1",
        f"--port={places.database_port}",
        *_QUICK,
    )


def ping_argv(places: Places) -> tuple[str, ...]:
    """Says ``mysqld is alive`` once the database answers."""
    return ("mariadb-admin", "--no-defaults", f"--socket={places.base}/database.sock", "ping")
