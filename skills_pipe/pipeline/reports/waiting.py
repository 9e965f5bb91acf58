"""Why a job waits, in words: Slurm tells it as one word of its own."""

from __future__ import annotations

import re

HELD = "held"
"""How the words for a job begin that somebody has to release."""
NEVER = "can never start"
"""How the words for a job begin that waits for what cannot come any more."""

_WORDS = {
    "Priority": "its turn has not come: jobs of a higher priority wait too",
    "Resources": "first in line, waits for free nodes",
    "Dependency": "waits for other jobs",
    "DependencyNeverSatisfied": f"{NEVER}: a job before it did not end as it had to",
    "BeginTime": "waits until its begin time, as every requeued job does for a while",
    "JobHeldUser": f"{HELD} by its owner",
    "JobHeldAdmin": f"{HELD} by an administrator",
    "JobHoldMaxRequeue": f"{HELD} by Slurm: it was requeued too often",
    "launch_failed_requeued_held": f"{HELD} by Slurm: its node could not start it",
    "JobArrayTaskLimit": "as many tasks of its array run as may",
    "ReqNodeNotAvail": "a node that it needs is down, drained or reserved",
    "Reservation": "waits for its reservation",
    "Licenses": "waits for a licence",
    "Cleaning": "is being cleaned up after its last start",
    "Prolog": "its nodes are being prepared",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition takes no jobs at the moment",
    "PartitionTimeLimit": f"{NEVER}: its time limit is above that of its partition",
    "PartitionNodeLimit": f"{NEVER} as it is: its partition has not as many nodes, or they are down",
    "PartitionConfig": f"{NEVER} as it is: its partition does not give what it asks for",
    "BadConstraints": f"{NEVER}: no node has what it asks for",
    "AccountNotAllowed": f"{NEVER}: its account may not use the partition",
    "QOSNotAllowed": f"{NEVER}: its quality of service may not use the partition",
    "InvalidAccount": f"{NEVER}: its account is not valid",
    "InvalidQOS": f"{NEVER}: its quality of service is not valid",
}

_LIMITS = re.compile(r"(?P<owner>QOS|Assoc)(?P<limit>Grp|Max)(?P<what>\w*)")
"""Several dozen words that tell which limit of a quality of service, or of an account, is reached."""
_OWNERS = {"QOS": "quality of service", "Assoc": "account"}
_COUNTED = (
    ("GRES", "GPUs"),
    ("Gres", "GPUs"),
    ("Node", "nodes"),
    ("Cpu", "CPUs"),
    ("CPU", "CPUs"),
    ("Mem", "memory"),
    ("Wall", "running time"),
    ("Submit", "submitted jobs"),
    ("Job", "running jobs"),
)


def waiting_words(reason: str) -> str:
    """What a reason of Slurm's means; one that is not known is given as it is."""
    word = re.split(r"[,(:]", reason.strip("()"), maxsplit=1)[0].strip()
    if word in ("", "None"):
        return ""
    if word in _WORDS:
        return _WORDS[word]
    limit = _LIMITS.fullmatch(word)
    if limit is None:
        return f"Slurm says {reason}"
    what = next((name for part, name in _COUNTED if part in limit["what"]), "use")
    whose = "of everybody in" if limit["limit"] == "Grp" else "of"
    return f"the limit on {what} {whose} its {_OWNERS[limit['owner']]} is reached ({word})"
