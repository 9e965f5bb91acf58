"""A configuration is checked before any work starts, and everything that is wrong with it is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from skills_pipe.errors import ConfigError, OptionError, UserError
from skills_pipe.training.prepare.build import OURS, find_class
from skills_pipe.training.prepare.config import PACKAGED, load_pipeline, select
from skills_pipe.training.prepare.processor import Processor
from skills_pipe.training.prepare.run import run
from tests.training.prepare.rows import read_rows, solution, write_rows


@pytest.fixture
def data(tmp_path):
    return write_rows(tmp_path / "data.jsonl", [solution(1), solution(2)])


def load(data, *overrides, name="math_sft", folder=None):
    basics = [f"++input_files={data}", f"++output_path={data.parent}/out/sft.jsonl"]
    return load_pipeline(name, folder, [*basics, *overrides])


def classes(pipeline):
    return [type(processor).__name__ for processor in pipeline.processors]


def test_math_sft_runs_its_processors_in_order(data):
    assert classes(load(data)) == [
        "ReadData",
        "MergeProcessor",
        "GroupSamples",
        "ShuffleAndDownsampleData",
        "WriteFinalSftManifest",
    ]


def test_filters_run_when_asked_for_in_their_fixed_order(data):
    merged = load(data, "++filters.trim_solutions=true", "filters.drop_multi_boxed=true").processors[1]
    assert [type(processor).__name__ for processor in merged.processor_configs] == ["DropMultiBoxed", "TrimSolutions"]
    assert load(data).processors[1].processor_configs == []


def test_every_filter_of_the_packaged_configuration_passes_its_own_test_cases(data):
    switches = ["drop_multi_boxed", "remove_code_errors", "remove_matplotlib", "remove_no_code"]
    switches += ["remove_no_think_tags", "remove_verification_code", "majority_filter", "trim_prefix"]
    switches += ["trim_solutions", "drop_incorrect_arithmetic", "split_arithmetic"]
    merged = load(data, *[f"++filters.{switch}=true" for switch in switches]).processors[1]
    assert len(merged.processor_configs) == len(switches)
    load(data, *[f"++filters.{switch}=true" for switch in switches], "++output_key=answer")


def test_a_failing_test_case_stops_the_run_before_it_starts(data):
    wrong = "{input: {generation: x}, output: {generation: y}}"
    with pytest.raises(ConfigError, match="a test case fails"):
        load(data, "++filters.trim_prefix=true", f"++processors.1.processor_configs.8.test_cases=[{wrong}]")


@pytest.mark.parametrize(
    ("override", "key", "suggestion"),
    [
        ("++filters.trim_solution=true", "filters.trim_solution", "filters.trim_solutions"),
        ("++do_shufle=false", "do_shufle", "do_shuffle"),
        ("do_shufle=false", "do_shufle", "do_shuffle"),
        ("+majority_filter.min_votes=3", "majority_filter.min_votes", "majority_filter.min_majority_votes"),
        ("++processors.0.skip_fist=3", "skip_fist", "skip_first"),
    ],
)
def test_an_unknown_key_is_an_error_with_a_suggestion(data, override, key, suggestion):
    with pytest.raises(ConfigError, match=f"unknown key '{key}'") as caught:
        load(data, override)
    assert f"did you mean '{suggestion}'" in str(caught.value)


def test_keys_below_a_mapping_of_the_user_are_free(data):
    final = load(data, "++metadata.source=web", "++metadata.level={a: 1}").processors[-1]
    assert final.metadata == {"source": "web", "level": {"a": 1}}


def test_a_new_key_that_something_refers_to_is_no_mistake(data):
    assert load(data, "+where=x", "++metadata={place: '${where}'}").processors[-1].metadata == {"place": "x"}
    with pytest.raises(ConfigError, match="unknown key 'where'"):
        load(data, "+where=x")


def test_all_problems_are_said_at_once(data):
    overrides = [
        "++filterz.a=1",
        "++add_correct=maybe",
        "++downsampling_method=best",
        "++filters.remove_contaminated=true",
    ]
    with pytest.raises(ConfigError) as caught:
        load(data, *overrides)
    message = str(caught.value)
    assert message.startswith("4 problems")
    for word in ("filterz", "add_correct", "best", "contamination_file"):
        assert word in message


@pytest.mark.parametrize("override", ["++skip_first=true", "++skip_first=1.5", "++processors.0.keys_to_keep=[1]"])
def test_a_value_of_another_type_is_an_error(data, override):
    with pytest.raises(ConfigError, match="must be"):
        load(data, override)


def test_a_value_that_is_not_set_is_named():
    with pytest.raises(ConfigError, match=r"output_path is not set .*: add \+\+output_path=VALUE"):
        load_pipeline("math_sft", None, ["++input_files=x"])


def test_a_wrong_override_or_configuration_is_an_error_of_the_user(data):
    with pytest.raises(OptionError):
        load(data, "a=[1")
    with pytest.raises(OptionError, match="did you mean 'math_sft'"):
        load(data, name="math_stf")


@pytest.mark.parametrize("separator", [",", " ", ", "])
def test_several_patterns_need_no_quotes(tmp_path, separator):
    files = [write_rows(tmp_path / name, [solution(number)]) for number, name in enumerate(["a.jsonl", "b'c.jsonl"])]
    pipeline = load_pipeline(
        "math_sft", None, [f"++input_files={separator.join(map(str, files))}", f"++output_path={tmp_path}/out.jsonl"]
    )
    run(pipeline)
    assert len(read_rows(tmp_path / "out.jsonl")) == 2


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("all", [0, 1, 2, 3]), ("1", [1]), (1, [1]), ("-1", [3]), ("2:", [2, 3]), (":-1", [0, 1, 2]), ("1:3", [1, 2])],
)
def test_a_slice_chooses_processors(choice, expected):
    assert select([0, 1, 2, 3], choice) == expected


@pytest.mark.parametrize("choice", ["4", "some", "1:2:3:4"])
def test_a_slice_that_chooses_nothing_is_an_error(choice):
    with pytest.raises(ConfigError, match="processors_to_run"):
        select([0, 1, 2, 3], choice)


def test_a_part_of_the_processors_needs_an_end_and_a_start(data):
    with pytest.raises(ConfigError, match=r"\+\+processors\.0\.output_manifest_file"):
        load(data, "++processors_to_run=0")
    with pytest.raises(ConfigError, match=r"\+\+processors\.2\.input_manifest_file"):
        load(data, "++processors_to_run=2:")


CUSTOM = """
output_path: ???
processors:
  - _target_: nemo_skills.training.data_preparation_utils.preprocessing.ReadData
    preprocessed_dataset_files: ${input_files}
    input_key: problem
    max_workers: 3
  - _target_: tests.training.prepare.test_config.Reverse
    times: 1
  - _target_: sdp.processors.RenameFields
    rename_fields: {problem: input}
    output_manifest_file: ${output_path}
input_files: ???
"""


class Reverse:
    """A processor of another package: it knows manifests on disk and nothing else of this program."""

    def __init__(self, input_manifest_file: str, output_manifest_file: str, times: int):
        self.input_manifest_file, self.output_manifest_file, self.times = (
            input_manifest_file,
            output_manifest_file,
            times,
        )

    def process(self) -> None:
        lines = Path(self.input_manifest_file).read_text().splitlines(keepends=True)
        Path(self.output_manifest_file).write_text("".join(reversed(lines)))


def test_processors_of_other_packages_run_between_ours(data, caplog):
    (data.parent / "own.yaml").write_text(CUSTOM)
    pipeline = load(data, name="own", folder=data.parent)
    assert "max_workers of processors.0 (ReadData) has no effect" in caplog.text
    run(pipeline)
    rows = read_rows(Path(pipeline.output))
    assert [row["input"] for row in rows] == [solution(2)["problem"], solution(1)["problem"]]
    assert not list(Path(pipeline.output).parent.glob(".tmp*"))


def test_wrong_keywords_of_a_foreign_processor_are_an_error(data):
    (data.parent / "own.yaml").write_text(CUSTOM.replace("times: 1", "time: 1"))
    with pytest.raises(ConfigError, match="wrong keywords"):
        load(data, name="own", folder=data.parent)


@pytest.mark.parametrize(
    "target", ["nowhere.Reverse", "skills_pipe.training.prepare.filters.DropMulti", "os.path", "x"]
)
def test_an_unknown_processor_is_an_error(target):
    with pytest.raises(ConfigError, match="there is no processor"):
        find_class(target)


@pytest.mark.parametrize("cls", OURS.values())
def test_a_processor_is_found_under_its_own_name(cls):
    assert find_class(f"{cls.__module__}.{cls.__qualname__}") is cls
    assert issubclass(cls, Processor)


@pytest.mark.parametrize("name", sorted(path.stem for path in PACKAGED.glob("*.yaml")))
def test_every_packaged_configuration_loads(data, name):
    pipeline = load(data, name=name)
    assert pipeline.output.endswith("sft.jsonl")


def test_the_input_and_the_output_of_a_processor_are_two_files():
    with pytest.raises(UserError, match="the same file"):
        OURS["GroupSamples"](input_manifest_file="a", output_manifest_file="a")
