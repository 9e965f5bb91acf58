"""Scripts: exact bytes against reviewed files, quoting that survives any text, edges that Slurm understands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import skills_pipe
from skills_pipe.errors import PlanError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, EnvVar, ExecutorKind
from skills_pipe.pipeline.plan import (
    Command,
    Edge,
    EdgeKind,
    Job,
    Launch,
    Member,
    Mount,
    Plan,
    Resources,
    Stage,
    chain,
    gate,
)
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.scripts.dependency import dependency
from skills_pipe.pipeline.scripts.local import render_local
from skills_pipe.pipeline.scripts.render import Surroundings, export_lines, join, threads_per_process
from skills_pipe.pipeline.scripts.sbatch import render_sbatch
from tests.slurm.availability import need, why_not

SCRIPTS = Path(__file__).parents[1] / "golden" / "scripts"
RUN = Run(Path("/lustre/jobs/experiments/my-exp/run-3"))
CODE = "/lustre/jobs/code/0123abcd"
MOUNTS = (
    Mount(source="/lustre/lab", target="/workspace"),
    Mount(source="/lustre/data", target="/data", read_only=True),
)

TRAIN = Job(
    name="my-exp-sft",
    stage="sft",
    command=Command(
        argv=(
            "python",
            "-m",
            "skills_pipe.training.sft",
            '++logger.wandb.name=it\'s "quoted" $HOME',
            "++data.x=[1, 2]",
        ),
        container="nemo-rl",
        launch=Launch.PER_GPU,
    ),
    resources=Resources(
        num_nodes=2, num_gpus=8, partition="batch", qos="high", time_limit="0-03:45:00", exclusive=True
    ),
    log_dir="/workspace/out/training-logs",
)
CONVERT = Job(
    name="my-exp-convert-final-ckpt",
    stage="convert",
    command=Command(
        argv=("python", "-m", "skills_pipe.training.checkpoint.export", "--hf_ckpt_path=/workspace/out/hf")
    ),
    resources=Resources(partition="cpu"),
    log_dir="/workspace/out/convert-final-ckpt",
)
SEGMENTS = chain(TRAIN, count=2)
PLAN = Plan(
    expname="my-exp",
    command="nemo_rl sft",
    stages=(
        Stage(name="sft", output="/workspace/out/checkpoints"),
        Stage(name="convert", output="/workspace/out/hf", upstream=("sft",)),
    ),
    jobs=(*SEGMENTS, replace(CONVERT, edges=gate(SEGMENTS))),
    mounts=MOUNTS,
)
PYXIS = ClusterConfig(
    name="big",
    executor=ExecutorKind.SLURM,
    job_dir="/lustre/jobs",
    container_runtime=ContainerRuntime.PYXIS,
    containers={"nemo-rl": "/images/nemo-rl.sqsh", "nemo-skills": "/images/nemo-skills.sqsh"},
    mounts=MOUNTS,
    env=(EnvVar(name="HF_HOME", value="/workspace/hf home"), EnvVar(name="MY_TOKEN", value="value-of-a-secret")),
    account="llm",
    job_name_prefix="llm-",
    mail_type="FAIL",
    mail_user="me@example.org",
    sbatch={"reservation": "spring", "comment": "a b"},
)
BARE = replace(PYXIS, container_runtime=ContainerRuntime.NONE, disable_gpus_per_node=True, sbatch={})
HERE = Surroundings(
    run_name="my-exp/run-3",
    run_dir="/home/me/.skills_pipe/experiments/my-exp/run-3",
    working_dir="/home/me/my project",
    env=(("HF_HOME", "/data/hf home"),),
    python_bin="/venv/bin",
)

SERVER = Member(
    name="server",
    command=Command(
        argv=(
            "bash",
            "-c",
            'exec "$@" --port "$SKILLS_PIPE_SERVER_PORT"',
            "server",
            "vllm",
            "serve",
            "/workspace/out/hf",
        ),
        container="/images/vllm.sqsh",
    ),
    num_gpus=8,
    service=True,
    ports=("SKILLS_PIPE_SERVER_PORT",),
    ready="/health",
)
SANDBOX = Member(
    name="sandbox",
    command=Command(argv=("/start-with-nginx.sh",), container="/images/sandbox.sqsh", secrets=(), mounts=False),
    service=True,
    ports=("NEMO_SKILLS_SANDBOX_PORT",),
    ready="/health",
)
ASK = replace(
    CONVERT,
    name="my-exp-gsm8k",
    command=Command(argv=("python", "-m", "skills_pipe.evaluation.evaluate", "--benchmark=gsm8k")),
    resources=Resources(num_gpus=8, partition="batch"),
    beside=(SERVER, SANDBOX),
    main_gpus=0,
)
ASKING = replace(PLAN, jobs=(ASK,))

GOLDEN = {
    "pyxis-server.sh": lambda: render_sbatch(ASK, ASKING, PYXIS, RUN, CODE),
    "local-server.sh": lambda: render_local(replace(ASK, beside=(SERVER,)), HERE),
    "pyxis-train.sh": lambda: render_sbatch(PLAN.jobs[0], PLAN, PYXIS, RUN, CODE),
    "pyxis-convert.sh": lambda: render_sbatch(PLAN.jobs[2], PLAN, PYXIS, RUN, CODE),
    "bare-train.sh": lambda: render_sbatch(PLAN.jobs[0], PLAN, BARE, RUN, CODE),
    "local-train.sh": lambda: render_local(SEGMENTS[0], HERE),
    "local-convert.sh": lambda: render_local(
        replace(CONVERT, command=replace(CONVERT.command, installation_command="pip install x && echo 'done'")),
        HERE,
        threads=2,
    ),
}


def portable(text: str) -> str:
    """The script without the folders of this machine."""
    code = str(Path(skills_pipe.__file__).resolve().parents[1])
    text = text.replace(str(Path(sys.executable).parent), "PYTHON_BIN").replace(code, "CODE")
    # Quotes that only the place of this checkout makes needful: a folder with spaces.
    return re.sub(r"'([^' ]*(?:CODE|PYTHON_BIN)[^' ]*)'", r"\1", text)


@pytest.mark.parametrize("name", GOLDEN)
def test_scripts_are_as_reviewed(name):
    """To accept a change: run with UPDATE_SCRIPTS=1, and review the difference."""
    text = portable(GOLDEN[name]())
    if os.environ.get("UPDATE_SCRIPTS"):
        (SCRIPTS / name).write_text(text)
    assert text == (SCRIPTS / name).read_text()


@pytest.mark.parametrize("name", GOLDEN)
def test_scripts_are_shell(name, tmp_path):
    (tmp_path / "script.sh").write_text(GOLDEN[name]())
    checked = subprocess.run(["bash", "-n", str(tmp_path / "script.sh")], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def doubtful(script: Path) -> str:
    """What shellcheck has to say of a script: words that no quotes hold together, variables that nobody sets, ..."""
    need(why_not("shellcheck"))
    # Not counted: files read at run time, variables of a program in quotes, job ids that are meant to be many words,
    # and what only other scripts of the same making use.
    excluded = "--exclude=SC1091,SC2016,SC2034,SC2046,SC2317,SC2329"
    return subprocess.run(["shellcheck", excluded, str(script)], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("name", GOLDEN)
def test_nothing_in_a_script_is_doubtful(name, tmp_path):
    (tmp_path / "script.sh").write_text(GOLDEN[name]())
    assert doubtful(tmp_path / "script.sh") == ""


def test_negative_control_a_variable_without_quotes_is(tmp_path):
    (tmp_path / "script.sh").write_text("#!/bin/bash\nrm -f $1\n")
    assert "Double quote" in doubtful(tmp_path / "script.sh")


@pytest.mark.parametrize("name", GOLDEN)
def test_no_secret_is_in_a_script(name):
    assert "value-of-a-secret" not in GOLDEN[name]()


def test_the_same_plan_gives_the_same_bytes():
    assert [make() for make in GOLDEN.values()] == [make() for make in GOLDEN.values()]


# Quoting

_ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
_NASTY = st.sampled_from(
    ["", "'", '"', "$HOME", "`id`", "a b", "\\", "!", "*", "~", "\n", "é", "$(id)", "-n", "#x", ";", "&&"]
)


@settings(deadline=None)  # each example starts a process
@given(st.lists(st.one_of(_ANY, _NASTY), max_size=5))
def test_a_command_reaches_the_program_token_by_token(tokens):
    argv = (sys.executable, "-c", "import sys; sys.stdout.buffer.write('\\0'.join(sys.argv[1:]).encode())", *tokens)
    answer = subprocess.run(["bash", "-c", f"exec {join(argv)}"], capture_output=True, check=True)
    assert answer.stdout == "\0".join(tokens).encode()


@settings(deadline=None)
@given(st.one_of(_ANY, _NASTY))
def test_a_variable_reaches_the_program_unchanged(value):
    (line,) = export_lines([("VALUE", value)])
    answer = subprocess.run(["bash", "-c", f"{line}\nexec printenv VALUE"], capture_output=True, check=True)
    assert answer.stdout == value.encode() + b"\n"


def test_negative_control_an_unquoted_variable_does_not():
    answer = subprocess.run(["bash", "-c", "export VALUE=a b\nexec printenv VALUE"], capture_output=True, check=True)
    assert answer.stdout == b"a\n"


@pytest.mark.parametrize("name", ["A B", "1A", "A-B", "", "A=B", "Ä"])
def test_what_cannot_be_a_variable_is_refused(name):
    with pytest.raises(PlanError, match="no name for an environment variable"):
        export_lines([(name, "x")])


def test_a_zero_byte_is_refused():
    with pytest.raises(PlanError, match="zero byte"):
        join(["a\0b"])


def test_bytes_that_are_no_text_are_refused():
    """As the command line gives them: a byte that is not UTF-8 becomes a lone surrogate."""
    with pytest.raises(PlanError, match="is not UTF-8"):
        join([os.fsdecode(b"\xff")])
    assert join(["\N{GRINNING FACE}"]) == "'\N{GRINNING FACE}'"


def test_a_line_break_cannot_smuggle_a_directive_into_the_header():
    evil = replace(PYXIS, sbatch={"comment": "x\n#SBATCH --account=other"})
    with pytest.raises(PlanError, match="'comment' holds a line break"):
        render_sbatch(PLAN.jobs[0], PLAN, evil, RUN, CODE)


# Dependencies

IDS = {"a": "1", "b": "2", "c": "3"}


def _waiting(*edges: tuple[str, EdgeKind]) -> Job:
    return replace(CONVERT, edges=tuple(Edge(upstream=upstream, kind=kind) for upstream, kind in edges))


@pytest.mark.parametrize(
    ("edges", "after", "expected"),
    [
        ([], (), None),
        ([], ("9", "8"), "afterok:9,afterok:8"),
        ([("a", EdgeKind.SUCCEEDED), ("b", EdgeKind.SUCCEEDED)], (), "afterok:1,afterok:2"),
        ([("a", EdgeKind.SUCCEEDED)], ("9",), "afterok:1"),
        ([("a", EdgeKind.UNFINISHED), ("b", EdgeKind.UNFINISHED)], (), "afternotok:1,afternotok:2"),
        ([("a", EdgeKind.UNFINISHED)], ("9",), "afterok:9,afternotok:1"),
        ([("c", EdgeKind.SUCCEEDED), ("a", EdgeKind.UNFINISHED)], (), "afterok:3,afternotok:1"),
        ([("a", EdgeKind.ANY_SUCCEEDED), ("b", EdgeKind.ANY_SUCCEEDED)], ("9",), "afterok:1?afterok:2"),
    ],
)
def test_edges_become_a_dependency(edges, after, expected):
    assert dependency(_waiting(*edges), IDS, after) == expected


def test_a_mix_of_any_of_and_all_of_is_refused():
    """Slurm takes it, and makes an any-of of everything."""
    mixed = _waiting(("a", EdgeKind.ANY_SUCCEEDED), ("b", EdgeKind.SUCCEEDED))
    with pytest.raises(PlanError, match="mixes an any-of edge with others"):
        dependency(mixed, IDS)


# Cores


def _plan(*edges: tuple[str, ...]) -> Plan:
    """One job for each tuple: its name, then the jobs it waits for."""
    jobs = tuple(
        replace(CONVERT, name=name, stage=name, edges=tuple(Edge(upstream=one) for one in after))
        for name, *after in edges
    )
    return Plan(expname="e", command="c", stages=tuple(Stage(name=job.name, output=None) for job in jobs), jobs=jobs)


def test_a_job_that_runs_alone_has_all_cores():
    plan = _plan(("a",), ("b", "a"), ("c", "b"))
    assert [threads_per_process(plan, job, cores=8) for job in plan.jobs] == [None, None, None]


def test_jobs_that_may_run_at_once_share_the_cores():
    plan = _plan(("a",), ("b", "a"), ("c", "a"), ("d", "b", "c"))
    assert [threads_per_process(plan, job, cores=8) for job in plan.jobs] == [None, 4, 4, None]


def test_there_is_always_a_core_for_each():
    plan = _plan(("a",), ("b",), ("c",), ("d",))
    assert {threads_per_process(plan, job, cores=2) for job in plan.jobs} == {1}
