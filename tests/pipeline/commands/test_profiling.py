import pytest

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.commands.profiling import read_step_range
from skills_pipe.training.config import load_config
from tests.pipeline.commands.sft.test_command import planned

TRAINER = ("python", "-m", "skills_pipe.training.sft")


def argv(**options):
    return planned(num_training_jobs=2, **options).job("sft-sft-1").command.argv


def overrides(words):
    return [word for word in words if word.startswith("++")]


def test_without_steps_nothing_is_profiled():
    words = argv(profiler="nsys")

    assert words[:3] == TRAINER
    assert not [word for word in words if "profile" in word]


def test_the_trainer_profiles_by_itself():
    words = argv(profile_step_range="3:5")
    config = load_config(None, overrides(words))

    assert words[:3] == TRAINER
    assert (config.logger.profile_step_range, config.logger.profiler) == ("3:5", "torch")


def test_nsight_systems_stands_before_the_trainer_of_each_job():
    words = argv(profile_step_range="3:5", profiler="nsys")
    begin = words.index("python")

    assert words[:begin] == (
        "nsys",
        "profile",
        "--capture-range=cudaProfilerApi",
        "--capture-range-end=stop",
        "--trace=cuda,nvtx,osrt",
        "--force-overwrite=true",
        "--output=/workspace/run/training-logs/profile/steps_3-4.%h.%p",
    )
    assert words[begin : begin + 3] == TRAINER
    assert load_config(None, overrides(words)).logger.profiler == "nsys"


def test_profiling_does_not_make_another_training():
    stages = [planned(**options).stage("sft") for options in ({}, {"profile_step_range": "3:5", "profiler": "nsys"})]

    assert stages[0] == stages[1]


@pytest.mark.parametrize("text", ["5:3", "0:2", "3", "3:3", "a:b", "3:5:7", ""])
def test_what_is_no_range_of_steps_is_refused(text):
    with pytest.raises(OptionError, match="is no range of steps"):
        read_step_range(text)
