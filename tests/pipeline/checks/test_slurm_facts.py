"""What Slurm prints on other clusters than the one of the tests, as facts."""

import pytest

from skills_pipe.pipeline.checks.questions import Questions, read_answers
from skills_pipe.pipeline.checks.slurm_facts import NodeGroup, read_facts

PARTITION = (
    "PartitionName=gpu AllowGroups=ALL AllowAccounts=lab,team DenyQos=x AllowQos=long,short Default=NO MaxNodes=16 "
    "MaxTime=2-00:00:00 State=UP TotalNodes=20"
)
NODES = "gpu|up|2-00:00:00|12|gpu:h100:8(S:0-1)|mixed\ngpu|up|2-00:00:00|4|gpu:h100:8(S:0-1)|drained*\n"


def facts(**asked: str):
    return read_facts({name: (0, out) for name, out in asked.items()})


def test_a_partition_with_its_limits():
    found = facts(partitions=PARTITION, nodes=NODES).partitions["gpu"]
    assert (found.max_seconds, found.max_nodes, found.num_nodes) == (172800, 16, 16)
    assert found.accounts == ("lab", "team") and found.qos == ("long", "short")
    assert found.gpu_types == {"h100"}
    assert found.nodes_with(8) == 16 and found.nodes_with(8, usable=True) == 12 and found.nodes_with(9) == 0


def test_without_limits_there_are_none():
    found = facts(partitions="PartitionName=p MaxNodes=UNLIMITED MaxTime=UNLIMITED State=UP Default=YES")
    assert found.default_partition == "p"
    partition = found.partitions["p"]
    assert (partition.max_seconds, partition.max_nodes, partition.accounts, partition.qos) == (None, None, None, None)


@pytest.mark.parametrize(
    ("gres", "gpus", "gpu_type"),
    [
        ("(null)", 0, None),
        ("gpu:8", 8, None),
        ("gpu:a100_80gb:4(S:0-3)", 4, "a100_80gb"),
        ("nvme:2,gpu:h200:8", 8, "h200"),
        ("gpu:a100:4,gpu:v100:2", 6, None),
        ("gpu:1g.10gb:7", 7, "1g.10gb"),
        ("gpu:tesla-t4:2(IDX:0-1)", 2, "tesla-t4"),
        ("vgpu:16", 0, None),
    ],
)
def test_gpus_of_a_node(gres, gpus, gpu_type):
    found = facts(partitions="PartitionName=p", nodes=f"p|up|infinite|3|{gres}|idle").partitions["p"]
    assert found.nodes == (NodeGroup(count=3, gpus=gpus, gpu_type=gpu_type),)


@pytest.mark.parametrize(
    ("state", "usable"),
    [("idle", True), ("mixed", True), ("idle~", True), ("down*", False), ("draining", False), ("maint", False)],
)
def test_nodes_that_run_nothing_for_now(state, usable):
    found = facts(partitions="PartitionName=p", nodes=f"p|up|infinite|1|gpu:1|{state}").partitions["p"]
    assert found.nodes[0].usable is usable


def test_accounts_and_limits_of_this_user():
    found = facts(
        associations="lab||long,normal||long\nlab|gpu|normal|10|\n",
        qos="normal|||\nlong|4|2|\n",
        queue="long|lab\nlong|lab\n",
    )
    assert found.associations is not None
    assert [(a.account, a.partition, a.qos, a.max_submit, a.default_qos) for a in found.associations] == [
        ("lab", None, ("long", "normal"), None, "long"),
        ("lab", "gpu", ("normal",), 10, None),
    ]
    assert found.max_submit == {"long": 2}
    assert found.queued == (("long", "lab"), ("long", "lab"))


def test_what_nobody_answered_is_not_known():
    found = read_facts({"associations": (1, "You are not running a supported accounting_storage plugin")})
    assert found.associations is None and found.max_submit is None and found.partitions == {}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("allocation failure: Invalid qos specification\n", "Invalid qos specification"),
        (
            "sbatch: error: invalid partition specified: x\nallocation failure: Invalid\n",
            "invalid partition specified: x; Invalid",
        ),
        ("sbatch: Job 5 to start at 2026-01-01T00:00:00", "Job 5 to start at 2026-01-01T00:00:00"),
    ],
)
def test_the_words_of_sbatch(words, reason):
    assert read_facts({"test j": (1, words)}).trials["j"].words == reason


# --- the answers as a whole


def test_what_a_login_shell_prints_before_is_skipped():
    questions = Questions(paths=("/a",))
    text = "Welcome to the cluster\n\x1elook\x1f/a\x1ffolder\x1fyes\x1f/a\x1fno"
    look = read_answers(text, questions).looks["/a"]
    assert (look.kind, look.readable, look.writable, look.exists) == ("folder", True, False, True)


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("", "sinfo says nothing within 20 s"),
        ("\x1eask\x1fnodes\x1f124\x1f", "sinfo says nothing within 20 s"),
        ("\x1eask\x1fnodes\x1f1\x1fa\nsinfo: fatal: no\n", "sinfo: fatal: no"),
    ],
)
def test_a_cluster_that_does_not_answer(out, reason):
    answers = read_answers(out, Questions(slurm=True))
    assert answers.slurm is None and answers.unreachable == reason
