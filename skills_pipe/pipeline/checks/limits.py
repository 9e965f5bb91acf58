"""Whether the jobs of a plan fit what Slurm allows: partitions, accounts, qualities of service.

Slurm takes several of these and leaves the job pending for ever (a time limit above that of the partition, more nodes
than there are, a partition that is down), so sbatch alone does not tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from skills_pipe.errors import did_you_mean
from skills_pipe.pipeline.checks.finding import Finding, error, errors_in, warning
from skills_pipe.pipeline.checks.slurm_facts import Association, Partition, SlurmFacts
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.cluster.slurm_time import format_time, parse_time
from skills_pipe.pipeline.plan import Job, Plan

_DEFAULT_QOS = "normal"


@dataclass(frozen=True, kw_only=True)
class _Demand:
    """What jobs ask of a partition, with the name of the first that does."""

    job: str
    num_nodes: int
    num_gpus: int
    time_limit: str | None


def check_partitions(plan: Plan, cluster: ClusterConfig, facts: SlurmFacts) -> list[Finding]:
    """Partitions that are not there, closed, or too small for the jobs; limits that jobs break."""
    findings: list[Finding] = []
    for names, demands in _by_partition(plan, facts).items():
        if not names:
            fix = "set partition in the cluster configuration, or add --partition"
            findings.append(error("no partition is named, and Slurm has no default one", fix=fix))
            continue
        where = _where(names, cluster)
        for name in names:
            if name not in facts.partitions:
                fix = did_you_mean(name, facts.partitions) or f"choose from {', '.join(facts.partitions) or 'none'}"
                findings.append(error(f"there is no partition {name!r}", where=where, fix=fix))
        known = [facts.partitions[name] for name in names if name in facts.partitions]
        for demand in demands:
            each = [[*_state(partition, where), *_fits(demand, partition, cluster)] for partition in known]
            # Of several partitions any one that takes the job will do.
            taking = [found for found in each if not errors_in(found)]
            told = [min(taking, key=len)] if taking else each
            findings += [finding for found in told for finding in found]
    return list(dict.fromkeys(findings))


def check_accounting(plan: Plan, cluster: ClusterConfig, facts: SlurmFacts) -> list[Finding]:
    """Accounts and qualities of service that this user may not use, and more jobs than may be queued."""
    return [*_accounts(plan, cluster, facts), *_qualities(plan, cluster, facts), *_queue(plan, cluster, facts)]


def check_trials(plan: Plan, facts: SlurmFacts, told: Iterable[Finding]) -> list[Finding]:
    """Jobs that sbatch refuses, unless ``told`` says something about their partition already."""
    explained = [finding.what for finding in told]
    findings = []
    for name, trial in facts.trials.items():
        job = plan.job(name)
        words = [job.name, repr(job.resources.partition or facts.default_partition), repr(job.resources.qos)]
        if not trial.accepted and not any(word in what for word in words for what in explained):
            fix = "change what it asks for: --partition, --num_nodes, --num_gpus, --qos, or the cluster configuration"
            findings.append(error(f"sbatch refuses {job.name}: {trial.words}", where="sbatch --test-only", fix=fix))
    return findings


def _by_partition(plan: Plan, facts: SlurmFacts) -> dict[tuple[str, ...], list[_Demand]]:
    found: dict[tuple[str, ...], list[_Demand]] = {}
    for job in plan.jobs:
        wanted = job.resources
        demand = _Demand(
            job=job.name, num_nodes=wanted.num_nodes, num_gpus=wanted.num_gpus, time_limit=wanted.time_limit
        )
        same = found.setdefault(_partitions_of(job, facts), [])
        if not any(_alike(demand, other) for other in same):
            same.append(demand)
    return found


def _partitions_of(job: Job, facts: SlurmFacts) -> tuple[str, ...]:
    """Where a job may start: Slurm takes several partitions, with commas between them."""
    return tuple(name for name in (job.resources.partition or facts.default_partition or "").split(",") if name)


def _alike(one: _Demand, other: _Demand) -> bool:
    return (one.num_nodes, one.num_gpus, one.time_limit) == (other.num_nodes, other.num_gpus, other.time_limit)


def _state(partition: Partition, where: str) -> Iterator[Finding]:
    if partition.state in ("DRAIN", "INACTIVE"):
        what = f"partition {partition.name!r} takes no jobs: it is {partition.state}"
        yield error(what, where=where, fix="choose another one, or wait")
    elif partition.state != "UP":
        what = f"partition {partition.name!r} is {partition.state}: jobs wait until it is up again"
        yield warning(what, where=where)


def _fits(demand: _Demand, partition: Partition, cluster: ClusterConfig) -> Iterator[Finding]:
    name = repr(partition.name)
    seconds = parse_time(demand.time_limit) if demand.time_limit else None
    if seconds and partition.max_seconds and seconds > partition.max_seconds:
        most = format_time(partition.max_seconds)
        what = f"{demand.job} may run {demand.time_limit}, and partition {name} allows {most}: it would never start"
        fix = f"set {partition.name}: {most} there"
        yield error(what, where=f"timeouts of cluster {cluster.name!r}", fix=fix)
    most_nodes = min(partition.max_nodes or partition.num_nodes, partition.num_nodes)
    if demand.num_nodes > most_nodes:
        what = f"{demand.job} asks for {demand.num_nodes} nodes, and partition {name} gives {most_nodes} at most"
        yield error(what, where="--num_nodes", fix=f"ask for {most_nodes} at most, or use another partition")
        return
    if demand.num_gpus and not cluster.disable_gpus_per_node:
        yield from _gpus(demand, partition)


def _gpus(demand: _Demand, partition: Partition) -> Iterator[Finding]:
    name, wanted = repr(partition.name), f"{demand.num_gpus} GPU{'s' if demand.num_gpus > 1 else ''} on"
    most = max((group.gpus for group in partition.nodes), default=0)
    fitting, usable = (partition.nodes_with(demand.num_gpus, usable=only) for only in (False, True))
    nodes = f"each of {demand.num_nodes} nodes" if demand.num_nodes > 1 else "a node"
    if not most:
        fix = "use another partition, or set disable_gpus_per_node where Slurm does not count GPUs"
        yield error(f"{demand.job} asks for GPUs, and partition {name} has none", where="--num_gpus", fix=fix)
    elif fitting < demand.num_nodes:
        has = f"nodes of partition {name} have {most} at most" if not fitting else f"{name} has {fitting} such nodes"
        fix = f"ask for {most} at most" if not fitting else f"ask for {fitting} nodes at most"
        where = "--num_gpus" if not fitting else "--num_nodes"
        yield error(f"{demand.job} asks for {wanted} {nodes}, and {has}", where=where, fix=fix)
    elif usable < demand.num_nodes:
        what = f"{demand.job} asks for {wanted} {nodes}, and only {usable} such nodes of partition {name} are up"
        yield warning(what, fix="expect a long wait")


def _accounts(plan: Plan, cluster: ClusterConfig, facts: SlurmFacts) -> Iterator[Finding]:
    account = cluster.account
    if account is None:
        return
    where = f"account of cluster {cluster.name!r}"
    own = facts.associations
    if own is not None and account not in {association.account for association in own}:
        known = list(dict.fromkeys(association.account for association in own))
        fix = did_you_mean(account, known) or (f"choose from {', '.join(known)}" if known else "ask for an account")
        what = f"{account!r} is none of your accounts"
        yield (
            error(what, where=where, fix=fix)
            if "associations" in facts.enforced
            else warning(what, where=where, fix=fix)
        )
        return
    for names in dict.fromkeys(_partitions_of(job, facts) for job in plan.jobs):
        places = [facts.partitions[name] for name in names if name in facts.partitions]
        if places and not any(_admits(place, account, own or ()) for place in places):
            what = f"account {account!r} may not use partition {', '.join(repr(place.name) for place in places)}"
            yield error(what, where=where, fix="choose another one")


def _admits(partition: Partition, account: str, own: Iterable[Association]) -> bool:
    limited = {association.partition for association in own if association.account == account}
    allowed = partition.accounts is None or account in partition.accounts
    return (
        allowed and account not in partition.denied_accounts and not (limited and not limited & {None, partition.name})
    )


def _qualities(plan: Plan, cluster: ClusterConfig, facts: SlurmFacts) -> Iterator[Finding]:
    if facts.associations is None or "qos" not in facts.enforced:
        return
    # An account that is none of this user's is told elsewhere.
    own = [a for a in facts.associations if cluster.account in (None, a.account)] or facts.associations
    known = list(dict.fromkeys(name for association in own for name in association.qos))
    for qos in dict.fromkeys(job.resources.qos for job in plan.jobs):
        if qos is None or not own:
            continue
        where = f"qos of cluster {cluster.name!r}" if qos == cluster.qos else "--qos"
        if qos not in known:
            fix = did_you_mean(qos, known) or f"choose from {', '.join(known) or 'none'}"
            yield error(f"you may not use the quality of service {qos!r}", where=where, fix=fix)
            continue
        for job in plan.jobs:
            places = [facts.partitions.get(name) for name in _partitions_of(job, facts)]
            closed = [place for place in places if place and place.qos is not None and qos not in place.qos]
            if job.resources.qos == qos and closed and len(closed) == len(places):
                what = f"partition {closed[0].name!r} does not take the quality of service {qos!r}"
                yield error(what, where=where, fix=f"choose from {', '.join(closed[0].qos or ())}")
                break


def _queue(plan: Plan, cluster: ClusterConfig, facts: SlurmFacts) -> Iterator[Finding]:
    """Slurm refuses the job above a limit, and then none of the plan is submitted."""
    if "limits" not in facts.enforced:
        return
    names = [job.resources.qos or _default_qos(cluster, facts) for job in plan.jobs]
    for qos in dict.fromkeys(name for name in names if name):
        queued = sum(name == qos for name, _ in facts.queued)
        most = (facts.max_submit or {}).get(qos)
        yield from _too_many(names.count(qos), queued, most, f"the quality of service {qos!r}", where="--qos")
    limits = [a.max_submit for a in facts.associations or () if a.account == cluster.account and a.max_submit]
    queued = sum(account == cluster.account for _, account in facts.queued)
    where = f"account of cluster {cluster.name!r}"
    yield from _too_many(len(plan.jobs), queued, min(limits, default=None), f"account {cluster.account!r}", where=where)


def _too_many(own: int, queued: int, most: int | None, whose: str, *, where: str) -> Iterator[Finding]:
    if most is None or own + queued <= most:
        return
    verb = "is" if queued == 1 else "are"
    waiting = f", of which {queued} {verb} queued already" if queued else ""
    wait = ", or wait" if own <= most else ""
    fix = f"ask for fewer (--num_training_jobs), or use another one{wait}"
    yield error(f"the plan has {own} jobs, and {whose} allows {most} at a time{waiting}", where=where, fix=fix)


def _default_qos(cluster: ClusterConfig, facts: SlurmFacts) -> str | None:
    """What jobs get that name no quality of service; None where it depends on what is not known here."""
    own = [a for a in facts.associations or () if cluster.account in (None, a.account)]
    defaults = {a.default_qos or (a.qos[0] if len(a.qos) == 1 else _DEFAULT_QOS) for a in own}
    return defaults.pop() if len(defaults) == 1 else None


def _where(partitions: Sequence[str], cluster: ClusterConfig) -> str:
    for key in ("partition", "cpu_partition"):
        if getattr(cluster, key) == ",".join(partitions):
            return f"{key} of cluster {cluster.name!r}"
    return "--partition"
