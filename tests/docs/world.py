"""A small world for the commands of a document: files under the names that the documents use, made tiny."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.documents import ROOT, Block, commands
from tests.docs.ns_in_world import HISTORY

_INPUTS = ROOT / "tests" / "training" / "golden" / "A" / "inputs"

CLUSTER_FILES = "/lustre"
"""Where the example configuration of a cluster has its folders; in a world they lie below it."""

SMALLER = {
    "meta-llama/Llama-3.1-8B-Instruct": "base-model",
    "meta-llama/Llama-3.1-8B": "base-model",
    "meta-llama/Llama-3.1-70B": "wide-model",
    "--benchmarks=arithmetic,gsm8k:4": "--benchmarks=arithmetic,gsm8k:4 ++max_samples=4 "
    "++inference.tokens_to_generate=8",
    "++inference.tokens_to_generate=512": "++inference.tokens_to_generate=8",
}
"""What commands on this machine get instead: a model of a few thousand parameters, short answers."""

NOT_RUN = {
    r"git clone URL skills_pipe": "it needs the network",
    r"cd skills_pipe": "it follows the clone; tests run in the repository",
    r"make (?P<target>\w+)": "it installs, and `make test` is this run; targets are compared with the Makefile",
    r"python3 -m venv \.venv && \. \.venv/bin/activate": "this environment is installed already",
    r"pip install torch==(?P<torch>\S+)": "it downloads; the version is compared with the Makefile",
    r'pip install -c constraints\.txt -e "\.\[(?P<extras>[\w,-]+)\]"': "it downloads; extras are compared as well",
    r"\.venv/bin/pre-commit install": "it changes the repository",
}
"""Commands that are not executed, each with the reason."""

VARYING = (
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d\b", "DATE"),
    (r"\b\d+(\.\d+)? ?s\b", "TIME"),
    (r" +\d+\.\d\d +[\d,]+$", " SECONDS RATE"),
    (r" +seconds +rows/s$", " SECONDS RATE"),  # the widest number sets the width
    (r"events/[\w.-]+\.jsonl", "events/WRITER.jsonl"),
    (r"\b[0-9a-f]{12,64}\b", "HASH"),
)
"""What differs from one run to the next in what a command prints."""


@dataclass(kw_only=True)
class World:
    """A folder in which the blocks of one document run one after the other."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, block: Block) -> subprocess.CompletedProcess[str]:
        """Execute a block; a shell block ends at its first command that fails."""
        if block.language == "python":
            script = self.folder / "block.py"
            script.write_text(of_python(block.text))
            argv = [sys.executable, str(script)]
        else:
            argv = ["bash", "-euo", "pipefail", "-c", of_shell(block.text)]
        return subprocess.run(
            argv,
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )

    def plain(self, text: str) -> str:
        """What was printed, without what differs from one run to the next."""
        text = text.replace(str(self.folder), "~")
        text = "\n".join(line.rstrip() for line in text.strip().splitlines())
        for pattern, word in VARYING:
            text = re.sub(pattern, word, text, flags=re.MULTILINE)
        return text

    def _environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("NEMO_", "SKILLS_PIPE_", "HF_"))
        }
        paths = [str(self.folder / "bin"), str(Path(sys.executable).parent), kept["PATH"]]
        return {
            **kept,
            "PATH": os.pathsep.join(paths),
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
            "HF_HOME": str(self.folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "WANDB_API_KEY": "0" * 40,
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "120",
            HISTORY: str(self.folder / "dry-runs.jsonl"),
            **self.variables,
        }


def of_shell(text: str) -> str:
    """The commands of a block that are executed here, as they are executed."""
    kept = [command for command in commands(text) if not reason_not_to_run(command)]
    return "\n".join(command if "--cluster=" in command else _smaller(command) for command in kept)


def of_python(text: str) -> str:
    """Python that would submit to a cluster makes dry runs instead."""
    if re.search(r"\bcluster\b", text):
        return text.replace('ctx=wrap_arguments("', 'ctx=wrap_arguments("--dry_run ')
    return _smaller(text)


def reason_not_to_run(command: str) -> str | None:
    """Why a command is not executed, None when it is."""
    return next((reason for pattern, reason in NOT_RUN.items() if not_run(pattern, command)), None)


def not_run(pattern: str, command: str) -> re.Match[str] | None:
    """Whether a pattern of :data:`NOT_RUN` is for this command, its comment aside."""
    return re.fullmatch(pattern, re.sub(r"\s+#.*$", "", command).strip())


def _smaller(text: str) -> str:
    # The longest first: one name may begin another.
    for long in sorted(SMALLER, key=len, reverse=True):
        text = text.replace(long, SMALLER[long])
    return text


Part = Callable[[World], None]


def launcher(world: World) -> None:
    """``ns`` itself."""
    program = world.folder / "bin" / "ns"
    program.parent.mkdir()
    command = shlex.join([sys.executable, str(Path(__file__).with_name("ns_in_world.py"))])
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    program.chmod(0o755)


def cluster(world: World) -> None:
    """Configurations of clusters, the folders of the example, and a run of the name that the documents use."""
    configs = world.folder / "cluster_configs"
    shutil.copytree(ROOT / "cluster_configs", configs)
    for path in configs.glob("*.yaml"):
        path.write_text(path.read_text().replace(CLUSTER_FILES, f"{world.folder}{CLUSTER_FILES}"))
    shutil.copy(configs / "example-slurm.yaml", configs / "slurm.yaml")
    benchmarks = [f"users/me/benchmarks/{name}" for name in ("arithmetic", "gsm8k")]
    for name in ("users/me/my-model", "data/generations", "cache/huggingface", *benchmarks):
        Path(f"{world.folder}{CLUSTER_FILES}/{name}").mkdir(parents=True)
    for name in benchmarks:
        Path(f"{world.folder}{CLUSTER_FILES}/{name}/test.jsonl").touch()
    data = Path(f"{world.folder}{CLUSTER_FILES}/data")
    (data / "sft-data.jsonl").write_text(json.dumps({"input": "1+1=", "output": "2"}) + "\n")
    shutil.copy(_INPUTS / "output-rs0.jsonl", data / "generations")
    world.run(Block(line=0, language="bash", text="ns run_cmd --expname=my-training-job true")).check_returncode()


def generations(world: World) -> None:
    """Generated solutions, to prepare training data of."""
    (world.folder / "generations").mkdir()
    for path in _INPUTS.glob("output-rs*.jsonl"):
        shutil.copy(path, world.folder / "generations")


def models(world: World) -> None:
    """A random base model, and the same as if it had been trained."""
    from tests.training.tiny import save_tiny_model

    save_tiny_model(world.folder / "base-model", max_position_embeddings=2048)
    shutil.copytree(world.folder / "base-model", world.folder / "my-run" / "final_hf_model")


def wide_model(world: World) -> None:
    """A random base model whose rows are whole blocks of 64 weights."""
    from tests.training.tiny import save_tiny_model

    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "max_position_embeddings": 2048}
    save_tiny_model(world.folder / "wide-model", **sizes)


def rows(world: World) -> None:
    """Rows to train on, and the example script with its configuration."""
    from tests.training.tiny import chat_rows, write_jsonl

    write_jsonl(world.folder / "train.jsonl", chat_rows(128))
    write_jsonl(world.folder / "validation.jsonl", chat_rows(16, seed=1))
    shutil.copytree(ROOT / "examples", world.folder / "examples")
