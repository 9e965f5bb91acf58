"""Both views of the file system: mounts cover whole components, and the longest one counts."""

import posixpath

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from skills_pipe.errors import PlanError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, ExecutorKind
from skills_pipe.pipeline.cluster.paths import PathMap, is_below, to_cluster
from skills_pipe.pipeline.plan import Mount

parts = st.text(alphabet="abc.-_ é", min_size=1, max_size=6).filter(lambda part: part not in (".", ".."))
paths = st.lists(parts, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))


def mapped(*mounts: tuple[str, str]) -> PathMap:
    return PathMap(mounts=tuple(Mount(source=source, target=target) for source, target in mounts))


def test_a_mount_covers_whole_components_only():
    lustre = mapped(("/lustre/data", "/data"))
    assert lustre.to_cluster("/data/x.jsonl") == "/lustre/data/x.jsonl"
    assert lustre.to_cluster("/data") == "/lustre/data"
    assert lustre.to_cluster("/data2/x.jsonl") is None
    assert lustre.to_container("/lustre/data_old/x") is None


def test_of_several_mounts_the_longest_one_counts():
    both = mapped(("/lustre", "/"), ("/fast/models", "/models"))
    assert both.to_cluster("/models/llama") == "/fast/models/llama"
    assert both.to_cluster("/models2/llama") == "/lustre/models2/llama"


def test_the_order_of_mounts_does_not_matter():
    one = mapped(("/a", "/w"), ("/b", "/w/x"))
    other = mapped(("/b", "/w/x"), ("/a", "/w"))
    assert one.to_cluster("/w/x/y") == other.to_cluster("/w/x/y") == "/b/y"


def test_read_only_mounts_are_not_writable():
    paths = PathMap(mounts=(Mount(source="/a", target="/data", read_only=True), Mount(source="/b", target="/data/out")))
    assert not paths.is_writable("/data/x")
    assert paths.is_writable("/data/out/x")
    assert not paths.is_writable("/elsewhere")


def test_without_containers_both_views_are_the_same():
    paths = PathMap.of(ClusterConfig(name="here", job_dir="/jobs"))
    assert paths.to_cluster("/any/where") == paths.to_container("/any/where") == "/any/where"
    assert paths.is_writable("/any/where")


def test_the_run_folder_is_seen_at_a_fixed_place():
    cluster = ClusterConfig(
        name="c", job_dir="/jobs", executor=ExecutorKind.SLURM, container_runtime=ContainerRuntime.PYXIS
    )
    assert PathMap.of(cluster, run_dir="/jobs/run-1").to_cluster("/nemo_run/scripts") == "/jobs/run-1/scripts"
    assert PathMap.of(cluster).to_cluster("/nemo_run/scripts") is None


def test_a_path_on_no_mount_is_an_error_that_says_so():
    with pytest.raises(PlanError, match="/data2/x is on no mount"):
        to_cluster("/data2/x", [Mount(source="/lustre", target="/data")])


@given(source=paths, target=paths, rest=parts)
def test_there_and_back_is_the_same_path(source, target, rest):
    both = mapped((source, target))
    inside = f"{target}/{rest}"
    assert both.to_container(both.to_cluster(inside)) == inside


@given(source=paths, target=paths, path=paths)
def test_what_is_not_below_a_mount_is_never_mapped(source, target, path):
    assume(posixpath.commonpath([target, path]) != target)
    assert mapped((source, target)).to_cluster(path) is None


@given(folder=paths, suffix=parts)
def test_a_longer_name_is_not_below(folder, suffix):
    assert not is_below(folder + suffix, folder)
    assert is_below(f"{folder}/{suffix}", folder)
