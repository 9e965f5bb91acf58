"""Cluster configurations: where they are found, what they may say, and how mistakes in them are told."""

from pathlib import Path

import pytest

import skills_pipe
from skills_pipe.errors import ClusterConfigError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, ExecutorKind
from skills_pipe.pipeline.cluster.file import parse_mount
from skills_pipe.pipeline.cluster.load import load_cluster
from skills_pipe.pipeline.plan import Mount

REPOSITORY = Path(skills_pipe.__file__).parent.parent
SLURM = {"executor": "slurm", "job_dir": "/jobs", "account": "me"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    for name in ("NEMO_SKILLS_CONFIG", "NEMO_SKILLS_CONFIG_DIR", "SKILLS_PIPE_JOB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def problems(**keys: object) -> str:
    with pytest.raises(ClusterConfigError) as caught:
        load_cluster(SLURM | keys)
    return str(caught.value)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- where configurations are found


def test_without_a_name_jobs_run_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "records"))
    here = load_cluster(None)
    assert here.is_local
    assert here.job_dir == str(tmp_path / "records")
    assert here.working_dir == str(tmp_path)


def test_the_folder_given_wins_over_the_environment_and_the_current_one(monkeypatch, tmp_path):
    for folder in ("given", "environment", "cluster_configs"):
        write(tmp_path / folder / "c.yaml", f"executor: slurm\njob_dir: /{folder}\n")
    assert load_cluster("c").job_dir == "/cluster_configs"
    monkeypatch.setenv("NEMO_SKILLS_CONFIG_DIR", str(tmp_path / "environment"))
    assert load_cluster("c").job_dir == "/environment"
    assert load_cluster("c", str(tmp_path / "given")).job_dir == "/given"


def test_a_folder_that_is_named_is_the_only_one_looked_at(tmp_path):
    write(tmp_path / "cluster_configs" / "c.yaml", "executor: local\n")
    with pytest.raises(ClusterConfigError, match="no cluster configuration 'c' in"):
        load_cluster("c", str(tmp_path / "empty"))


def test_the_environment_names_the_default_configuration(monkeypatch, tmp_path):
    path = write(tmp_path / "mine.yaml", "executor: slurm\njob_dir: /mine\n")
    monkeypatch.setenv("NEMO_SKILLS_CONFIG", str(path))
    assert load_cluster(None).job_dir == "/mine"


def test_a_path_can_be_given_for_a_name(tmp_path):
    path = write(tmp_path / "x" / "c.yaml", "executor: slurm\njob_dir: /x\n")
    assert load_cluster(str(path)).name == "c"


def test_a_misspelt_name_is_told_with_the_nearest_one(tmp_path):
    write(tmp_path / "cluster_configs" / "prenyx.yaml", "executor: local\n")
    with pytest.raises(ClusterConfigError, match="did you mean 'prenyx'"):
        load_cluster("prenix")


@pytest.mark.parametrize("name", ["local", "none"])
def test_names_of_this_machine_need_no_file(name):
    assert load_cluster(name).is_local


def test_the_examples_are_valid():
    names = sorted(path.name for path in (REPOSITORY / "cluster_configs").glob("*.yaml"))
    assert names == ["example-local.yaml", "example-slurm.yaml"]
    assert load_cluster(str(REPOSITORY / "cluster_configs" / "example-local.yaml")).is_local
    slurm = load_cluster(str(REPOSITORY / "cluster_configs" / "example-slurm.yaml"))
    assert slurm.container_runtime is ContainerRuntime.PYXIS
    assert slurm.time_limit("cpu") == "1-00:00:00"


# --- what they may say


def test_every_key_of_nemo_skills_is_understood():
    config = load_cluster(
        {
            "executor": "slurm",
            "containers": {"nemo-rl": "/images/rl.sqsh", "vllm": "vllm/vllm-openai:v0.10.1.1"},
            "mounts": ["/lustre:/workspace"],
            "env_vars": ["HF_HOME=/hf", "EXTRA"],
            "required_env_vars": ["NEEDED"],
            "ssh_tunnel": {"host": "login", "user": "me", "job_dir": "/remote/jobs", "identity": "/id"},
            "job_dir": "/jobs",
            "account": "a",
            "partition": "gpu",
            "cpu_partition": "cpu",
            "job_name_prefix": "me-",
            "default_timeout": "04:00:00",
            "timeouts": {"gpu": "2-00:00:00"},
            "dependency_type": "afterany",
            "disable_gpus_per_node": True,
            "mail_type": "FAIL",
            "mail_user": "me@example.com",
            "num_workers": 8,
            "skip_hf_home_check": True,
            "sbatch": {"reservation": "spring"},
            "container_runtime": "pyxis",
        }
    )
    assert config.executor is ExecutorKind.SLURM
    assert config.job_dir == "/remote/jobs"
    assert config.time_limit("gpu") == "2-00:00:00"
    assert config.time_limit(None) == config.time_limit("other") == "0-04:00:00"
    assert config.sbatch == {"reservation": "spring"}


def test_time_limits_in_files_mean_what_they_look_like(tmp_path):
    write(
        tmp_path / "cluster_configs" / "c.yaml",
        "executor: slurm\njob_dir: /j\ndefault_timeout: 30\ntimeouts: {a: 4:00:00, b: 10:00, c: '04:00:00'}\n",
    )
    config = load_cluster("c")
    limits = [config.time_limit(name) for name in ("a", "b", "c", "other")]
    assert limits == ["0-04:00:00", "0-00:10:00", "0-04:00:00", "0-00:30:00"]


def test_without_a_time_limit_there_is_none():
    assert load_cluster(SLURM).time_limit("gpu") is None


def test_containers_need_pyxis_unless_said_otherwise():
    assert load_cluster(SLURM | {"containers": {"a": "b"}}).container_runtime is ContainerRuntime.PYXIS
    assert load_cluster(SLURM).container_runtime is ContainerRuntime.NONE


def test_mounts_take_variables_and_modes(monkeypatch):
    monkeypatch.setenv("DATA", "/lustre/data")
    assert parse_mount("{DATA}:/data:ro") == Mount(source="/lustre/data", target="/data", read_only=True)
    assert parse_mount("/a/:/b") == Mount(source="/a", target="/b")


# --- the environment of jobs


def test_values_may_hold_equals_signs():
    config = load_cluster(SLURM | {"env_vars": ["OPTS=--a=b==", "EMPTY="]})
    assert config.environment({}) == {"OPTS": "--a=b==", "EMPTY": ""}


def test_a_name_alone_takes_the_value_at_submission():
    config = load_cluster(SLURM | {"env_vars": ["FROM_HERE", "NOT_SET"]})
    assert config.environment({"FROM_HERE": "x"}) == {"FROM_HERE": "x"}


def test_required_variables_must_be_set():
    config = load_cluster(SLURM | {"required_env_vars": ["NEEDED", "GIVEN=1"]})
    assert config.environment({"NEEDED": "y"}) == {"NEEDED": "y", "GIVEN": "1"}
    with pytest.raises(ClusterConfigError, match="NEEDED must be set for jobs"):
        config.environment({})


def test_keys_of_services_come_along_whenever_they_are_set(tmp_path):
    config = load_cluster(SLURM)
    found = config.environment({"HF_HOME": str(tmp_path), "WANDB_API_KEY": "w", "NVIDIA_API_KEY": "n", "PATH": "/bin"})
    assert found == {"WANDB_API_KEY": "w", "NVIDIA_API_KEY": "n", "NGC_API_KEY": "n"}


def test_the_stored_token_of_hugging_face_is_used(tmp_path):
    (tmp_path / "token").write_text("hf_stored\n")
    config = load_cluster(SLURM)
    assert config.environment({"HF_HOME": str(tmp_path)}) == {"HF_TOKEN": "hf_stored"}
    assert config.environment({"HF_HOME": str(tmp_path), "HF_TOKEN": "hf_set"}) == {"HF_TOKEN": "hf_set"}


def test_values_can_refer_to_the_environment_of_the_submitter(monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    config = load_cluster(SLURM | {"env_vars": ["CACHE=$SCRATCH/cache", "TMP=${SCRATCH}/tmp"]})
    assert config.environment({}) == {"CACHE": "/scratch/me/cache", "TMP": "/scratch/me/tmp"}
    assert "NOWHERE is not set" in problems(env_vars=["A=$NOWHERE"])


def test_no_value_of_a_variable_is_shown_by_the_configuration(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    config = load_cluster(SLURM | {"env_vars": ["MY_TOKEN=hush", "HF_TOKEN"]})
    assert "hush" not in repr(config)
    assert "hf_secret" not in repr(config)
    # The check would catch it: the value is there.
    assert config.environment()["MY_TOKEN"] == "hush"


# --- mistakes


def test_misspelt_keys_are_told_with_the_nearest_one():
    assert "did you mean 'partition'" in problems(partiton="gpu")
    assert "ssh_tunnel.hots is not a key" in problems(ssh_tunnel={"hots": "h", "host": "h", "job_dir": "/j"})


def test_all_mistakes_are_told_at_once():
    text = problems(executor="slrum", mounts=["a:b"], timeouts={"gpu": "soon"}, num_workers=0, env_vars="X=1")
    for part in ("did you mean 'slurm'", "mount 'a:b'", "timeouts.gpu", "num_workers", "env_vars must be a list"):
        assert part in text


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"job_dir": None}, "job_dir is missing"),
        ({"job_dir": "relative"}, "must be an absolute path"),
        ({"job_dir": "/{UNSET_VARIABLE}"}, "UNSET_VARIABLE is not set"),
        ({"ssh_tunnel": {"host": "h"}}, "ssh_tunnel.job_dir is missing"),
        ({"env_vars": ["=x"]}, "is not the name of a variable"),
        ({"disable_gpus_per_node": "yes"}, "must be true or false"),
        ({"containers": ["a"]}, "must be a mapping"),
        ({"executor": None}, "executor is missing"),
        ({"container_runtime": "dokcer"}, "must be one of"),
    ],
)
def test_each_mistake_says_what_is_wrong(keys, told):
    assert told in problems(**keys)


def test_a_file_that_is_no_mapping_is_refused_by_name(tmp_path):
    path = write(tmp_path / "c.yaml", "- executor\n")
    with pytest.raises(ClusterConfigError, match=r"c\.yaml"):
        load_cluster(str(path))
    path.write_text("a: [\n")
    with pytest.raises(ClusterConfigError, match="not valid YAML"):
        load_cluster(str(path))
    with pytest.raises(ClusterConfigError, match="no such file"):
        load_cluster(str(tmp_path / "none.yaml"))


# --- paths


def test_paths_are_absolute_here_and_as_given_elsewhere(tmp_path):
    here = load_cluster(None)
    assert here.absolute("out/") == str(tmp_path / "out")
    assert here.absolute_or_id("org/name") == "org/name"
    assert here.absolute_or_id("./org/name") == str(tmp_path / "org" / "name")
    assert here.absolute_or_id("data.jsonl") == str(tmp_path / "data.jsonl")
    assert ClusterConfig(name="c", job_dir="/j").absolute("/workspace/x/") == "/workspace/x"
