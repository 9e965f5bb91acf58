"""What outputs were made of, followed from manifest to manifest."""

from __future__ import annotations

from pathlib import Path

from skills_pipe.artifacts import manifest
from skills_pipe.artifacts.atomic import write_json
from skills_pipe.artifacts.identity import Identity
from skills_pipe.artifacts.manifest import FileRecord, Manifest
from skills_pipe.artifacts.names import manifest_path
from skills_pipe.pipeline.reports.lineage import Lineage
from skills_pipe.pipeline.site.site import HERE


def sealed(path: Path, inputs: dict[str, str], **options: object) -> str:
    """A file that a stage has made of ``inputs``."""
    path.write_text("x")
    identity = Identity.of(options=options, inputs=inputs)
    made = Manifest(kind="test", files={path.name: FileRecord(size=1, hash="0" * 64)}, identity=identity)
    write_json(manifest_path(path), made.to_json())
    assert manifest.read(path) == made
    return str(path)


def trace(inputs):
    return Lineage(HERE, Path).trace({"stage": inputs})["stage"]


def test_inputs_are_followed_to_where_they_came_from(tmp_path):
    raw = sealed(tmp_path / "raw", {"org/data": "hub:org/data"}, seed=1)
    ready = sealed(tmp_path / "ready", {raw: "contents:abc"})
    (origin,) = trace({ready: "contents:def"})
    assert (origin.path, origin.fingerprint, origin.size) == (ready, "contents:def", 1)
    (before,) = origin.inputs
    assert before.path == raw and before.identity.fields["options"] == {"seed": 1}
    assert [first.path for first in before.inputs] == ["org/data"]
    assert before.inputs[0].manifest is None


def test_what_nobody_has_sealed_ends_the_line(tmp_path):
    (tmp_path / "raw").write_text("x")
    (origin,) = trace({str(tmp_path / "raw"): "files:1"})
    assert origin.manifest is None and origin.inputs == ()


def test_outputs_that_were_made_of_each_other_do_not_hang_it(tmp_path):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    sealed(tmp_path / "one", {two: "contents:2"})
    sealed(tmp_path / "two", {one: "contents:1"})
    (origin,) = trace({one: "contents:1"})
    depth = 0
    while origin.inputs:
        (origin,) = origin.inputs
        depth += 1
    assert depth < 20


def test_a_damaged_manifest_is_no_manifest(tmp_path):
    path = tmp_path / "out"
    path.write_text("x")
    manifest_path(path).write_text("{")
    (origin,) = trace({str(path): "files:1"})
    assert origin.manifest is None


def test_the_cluster_is_asked_once_for_each_generation(tmp_path):
    class Counting:
        asked = 0

        def facts(self, wanted):
            Counting.asked += 1
            return HERE.facts(wanted)

    raw = sealed(tmp_path / "raw", {})
    ready = sealed(tmp_path / "ready", {raw: "x"})
    other = sealed(tmp_path / "other", {raw: "x"})
    Lineage(Counting(), Path).trace({"a": {ready: "x", other: "y"}, "b": {ready: "x"}})
    assert Counting.asked == 2
