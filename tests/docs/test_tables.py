"""Tables of the documents name what the code knows, no more and no less."""

import re
import tomllib
from dataclasses import MISSING, fields, is_dataclass

import pytest
import yaml

from skills_pipe.artifacts.verdict import Outcome
from skills_pipe.errors import ClusterConfigError
from skills_pipe.evaluation.settings import Overrides
from skills_pipe.pipeline.cluster import file as cluster_file
from skills_pipe.pipeline.cluster.config import ALWAYS_FORWARDED, ContainerRuntime, EnvVar
from skills_pipe.pipeline.cluster.load import load_cluster
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.records.store import RunStore
from skills_pipe.training.config.estimate import GIB, ModelShape, activation_bytes
from tests.docs.documents import ROOT
from tests.training.config.test_estimate import LLAMA_8B


def first_column(document, heading):
    """The code words in the first column of the table behind a line that begins with ``heading``."""
    text = (ROOT / document).read_text()
    table = re.search(rf"^{re.escape(heading)}.*\n\| ---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table, f"{document} has no table that begins with {heading!r}"
    return [word for row in table.group(1).splitlines() for word in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_every_key_of_a_cluster_configuration_is_described():
    described = first_column("docs/clusters.md", "| key | meaning")
    assert sorted(described) == sorted(cluster_file.KEYS)


def test_every_key_of_a_tunnel_is_described():
    row = re.search(r"^\| `ssh_tunnel` \|.*", (ROOT / "docs/clusters.md").read_text(), re.MULTILINE)
    assert row
    assert set(cluster_file.TUNNEL_KEYS) == set(re.findall(r"`(\w+)`", row.group())) - {"ssh_tunnel"}


def test_a_key_that_is_described_and_unknown_would_be_found():
    with pytest.raises(ClusterConfigError, match="acount is not a key"):
        load_cluster({"executor": "slurm", "job_dir": "/jobs", "acount": "a"})


def test_the_runtimes_of_containers_are_those_that_exist():
    described = first_column("docs/containers.md", "| | starts a command by")
    assert described == [runtime.value for runtime in ContainerRuntime]


def test_the_variables_that_jobs_always_get_are_named():
    described = first_column("docs/containers.md", "| variable | reaches jobs")
    assert set(ALWAYS_FORWARDED) <= set(described)
    secret_endings = {word for word in described if EnvVar(name=f"MY_{word}").secret and "_" not in word}
    assert secret_endings == {"TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIALS"}


def test_the_folders_of_a_run_are_described(tmp_path):
    described = {word.partition("/")[0] for word in first_column("docs/architecture.md", "| | written by | holds")}
    run = RunStore(tmp_path).create("x")
    assert {entry.name for entry in run.folder.iterdir()} <= described


def test_every_state_of_a_job_is_described():
    assert set(first_column("docs/runs.md", "| state of a job |")) == {state.value for state in JobState}


def test_every_verdict_is_described():
    described = first_column("docs/architecture.md", "| verdict |")
    assert described == [outcome.value for outcome in Outcome]


def test_every_metric_is_described():
    described = first_column("docs/training.md", "| name | unit")
    files = ("loop.py", "monitoring/performance.py", "models/expert_load.py")
    code = "".join((ROOT / "skills_pipe/training" / file).read_text() for file in files)
    written = set(re.findall(r'"((?:train|timing|validation|memory)/[\w/]+)"', code))
    assert set(described) == written


def keys_of(section, prefix=""):
    """Dotted names of the fields of a dataclass and of those inside it."""
    for field in fields(section):
        inner = field.default_factory() if field.default_factory is not MISSING else None
        yield from keys_of(inner, f"{prefix}{field.name}.") if is_dataclass(inner) else [prefix + field.name]


def test_every_key_of_an_evaluation_is_described():
    described = []
    for word in first_column("docs/evaluation.md", "| key | default"):
        # A short name belongs to the section of the word before it.
        section = described[-1].rpartition(".")[0] if described else ""
        known = f"{section}.{word}" in set(keys_of(Overrides))
        described.append(f"{section}.{word}" if "." not in word and known else word)
    assert sorted(described) == sorted(keys_of(Overrides))


def test_every_extra_for_users_is_described():
    described = first_column("README.md", "| extra | for")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(described) <= set(extras)


@pytest.mark.parametrize("path", sorted((ROOT / "cluster_configs").glob("example-*.yaml")), ids=lambda path: path.stem)
def test_example_configurations_are_accepted(path):
    assert load_cluster(str(path)).name == path.stem


def test_the_example_names_every_key_that_has_an_effect():
    text = (ROOT / "cluster_configs" / "example-slurm.yaml").read_text()
    without_effect = {"dependency_type", "num_workers"}
    of_another_executor = {"nemo_run"}
    named = set(re.findall(r"^(?:# )?(\w+):", text, re.MULTILINE))
    assert set(cluster_file.KEYS) - without_effect - of_another_executor <= named
    assert set(yaml.safe_load(text)) <= named


def test_what_recomputing_saves_is_what_the_estimate_counts():
    shape = ModelShape.of(LLAMA_8B)
    page = (ROOT / "docs/training.md").read_text()
    rows = re.findall(r"^\| `(?:true|false)`[^|]*\| (.*?) ?\|.*?\| ([\d.]+) GiB \|$", page, re.MULTILINE)
    said = {(re.findall(r"`(\w+)`", granularity) or ["nothing"])[0]: gib for granularity, gib in rows}

    counted = {
        name: f"{activation_bytes(shape, 4096, width=2, recompute=name) / GIB:.1f}"
        for name in ("nothing", "selective", "full")
    }
    assert said == counted
