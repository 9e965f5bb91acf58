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


@pytest.mark.parametrize("path", sorted((REPOSITORY / "cluster_configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_are_valid(path):
    assert load_cluster(str(path)).name == path.stem


def test_the_examples_are_those_of_the_documents():
    configs = REPOSITORY / "cluster_configs"
    described = (REPOSITORY / "docs" / "clusters.md").read_text()
    assert [path.name for path in configs.glob("*.yaml") if f"`{path.name}`" not in described] == []
    assert load_cluster(str(configs / "example-local.yaml")).is_local
    slurm = load_cluster(str(configs / "example-slurm.yaml"))
    assert slurm.container_runtime is ContainerRuntime.PYXIS
    assert slurm.time_limit("cpu") == "1-00:00:00"
    apptainer = load_cluster(str(configs / "example-apptainer.yaml"))
    assert apptainer.container_runtime is ContainerRuntime.APPTAINER
    assert apptainer.gpu_memory_gb == 40
    assert apptainer.qos == "normal"


# --- what they may say


NEMO_SKILLS = """\
# Written for NeMo-Skills, unchanged.
executor: slurm

containers:
  trtllm: nvcr.io/nvidia/tensorrt-llm/release:1.0.0
  vllm: vllm/vllm-openai:v0.10.1.1
  sglang: lmsysorg/sglang:v0.5.3rc1-cu126
  megatron: /images/megatron.sqsh
  sandbox: /images/sandbox.sqsh
  nemo-skills: /images/nemo-skills.sqsh
  verl: /images/verl.sqsh
  nemo-rl: /images/nemo-rl.sqsh

job_name_prefix: "nemo_skills:"

ssh_tunnel:
  host: login.example.com
  user: {USER_THERE}
  job_dir: /lustre/jobs/nemo-skills
  identity: ~/.ssh/id_rsa
  shell: /bin/bash
  pre_command: source /etc/profile

account: llm
partition: batch
cpu_partition: cpu
timeouts:
  batch: 04:00:00
  interactive: 2:00:00
  cpu: 1-00:00:00
default_timeout: 00:30:00

mounts:
  - "{LUSTRE}/me:/workspace"
  - /lustre/data:/data

env_vars:
  - HF_HOME=/workspace/hf
  - TOKENIZED=a=b==
  - EXTRA
required_env_vars:
  - NEEDED
  - FIXED=1

dependency_type: afterany
disable_gpus_per_node: true
mail_type: FAIL
mail_user: me@example.com
num_workers: 8
skip_hf_home_check: true
"""


def test_a_file_of_nemo_skills_is_taken_unchanged(tmp_path, monkeypatch):
    monkeypatch.setenv("LUSTRE", "/lustre/users")
    monkeypatch.setenv("USER_THERE", "me")
    write(tmp_path / "cluster_configs" / "c.yaml", NEMO_SKILLS.replace("user: {USER_THERE}", 'user: "{USER_THERE}"'))
    config = load_cluster("c")
    assert config.executor is ExecutorKind.SLURM
    assert config.container_runtime is ContainerRuntime.PYXIS
    assert len(config.containers) == 8
    assert config.job_dir == "/lustre/jobs/nemo-skills"
    assert config.ssh_tunnel is not None and config.ssh_tunnel.user == "me"
    assert [config.time_limit(name) for name in ("batch", "interactive", "cpu", "other", None)] == [
        *("0-04:00:00", "0-02:00:00", "1-00:00:00", "0-00:30:00", "0-00:30:00")
    ]
    assert config.mounts[0] == Mount(source="/lustre/users/me", target="/workspace")
    values = {variable.name: variable.value for variable in config.env}
    assert values == {"HF_HOME": "/workspace/hf", "TOKENIZED": "a=b==", "EXTRA": None, "NEEDED": None, "FIXED": "1"}
    assert [variable.name for variable in config.env if variable.required] == ["NEEDED", "FIXED"]
    assert config.disable_gpus_per_node and config.skip_hf_home_check and config.num_workers == 8


def test_keys_of_our_own():
    config = load_cluster(SLURM | {"sbatch": {"reservation": "spring"}, "qos": "long", "gpu_memory_gb": 79.6})
    assert config.sbatch == {"reservation": "spring"}
    assert (config.qos, config.gpu_memory_gb) == ("long", 79.6)


def test_the_memory_of_a_gpu_is_a_number_above_0():
    assert "gpu_memory_gb must be a number above 0, not '80GB'" in problems(gpu_memory_gb="80GB")
    assert "gpu_memory_gb must be a number above 0, not 0" in problems(gpu_memory_gb=0)


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


def test_what_jobs_get_of_an_environment_is_no_key_of_sbatch():
    told = problems(sbatch={"export": "ALL", "reservation": "spring"})
    assert "sbatch.export has no effect: write the variables of jobs into env_vars" in told
    assert load_cluster(SLURM | {"sbatch": {"export-file": "x"}}).sbatch == {"export-file": "x"}, "only that one"


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


# --- where in a file mistakes are


def test_mistakes_name_their_line(tmp_path):
    write(
        tmp_path / "cluster_configs" / "c.yaml",
        "# a comment\nexecutor: slurm\njob_dir: /j\npartion: gpu\ntimeouts:\n  gpu: soon\nnum_workers: none\n",
    )
    with pytest.raises(ClusterConfigError) as caught:
        load_cluster("c")
    told = str(caught.value)
    assert "line 4: partion is not a key of cluster configurations, did you mean 'partition'?" in told
    assert "line 6: timeouts.gpu is wrong: 'soon' is not a time limit" in told
    assert "line 7: num_workers must be a whole number" in told
    assert "cluster_configs/c.yaml" in told


def test_what_is_missing_and_what_is_no_file_has_no_line():
    assert problems(job_dir=None).startswith("job_dir is missing")
    assert problems(partion="x").startswith("partion is not a key")


def test_a_key_in_a_section_has_the_line_of_that_section(tmp_path):
    write(
        tmp_path / "cluster_configs" / "c.yaml",
        "executor: slurm\nssh_tunnel:\n  host: h\n  job_dir: /j\n  usr: me\nuser: me\n",
    )
    with pytest.raises(ClusterConfigError, match=r"line 5: ssh_tunnel\.usr is not a key") as caught:
        load_cluster("c")
    assert "line 6: user is not a key" in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "word\n"])
def test_a_file_without_keys_is_refused(tmp_path, text):
    write(tmp_path / "cluster_configs" / "c.yaml", text)
    with pytest.raises(ClusterConfigError, match="a mapping of keys to values"):
        load_cluster("c")
