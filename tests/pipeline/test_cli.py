"""``ns`` on a terminal, and the same commands in Python."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from skills_pipe import __version__
from skills_pipe.errors import JobFailed, OptionError, PlanError, UserError
from skills_pipe.pipeline import cli
from skills_pipe.pipeline.cli import main, run_cmd, sft_nemo_rl, wrap_arguments
from skills_pipe.pipeline.console import registry
from skills_pipe.pipeline.console.registry import ENTRIES
from skills_pipe.pipeline.options.declaration import Kind

HEAVY = (
    "torch",
    "transformers",
    "numpy",
    "nemo_run",
    "submitit",
    "omegaconf",
    "hydra",
    "yaml",
    "huggingface_hub",
    "pydantic",
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of its own, with records of runs in it and two inputs of a training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("NEMO_SKILLS_CONFIG", "NEMO_SKILLS_CONFIG_DIR", "NEMO_SKILLS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "data.jsonl").write_text('{"input": "a", "output": "b"}\n')
    return tmp_path


def ns(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "skills_pipe.pipeline.cli", *words], capture_output=True, text=True)


SFT = ("nemo_rl", "sft", "--output_dir=out", "--hf_model=base", "--training_data=data.jsonl")


# --- the terminal


def test_version_and_help():
    assert ns("--version").stdout == f"{__version__}\n"
    assert "nemo_rl sft" in ns("--help").stdout
    assert ns().stdout == ns("--help").stdout
    assert "--num_training_jobs=N" in ns("nemo_rl", "sft", "--help").stdout
    assert "sft" in ns("nemo_rl").stdout
    assert ns("eval", "-h").stdout == ns("eval", "--help").stdout


def test_help_is_shown_even_beside_mistakes(capsys):
    assert main([*SFT, "--foo", "stray", "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("Usage: ns nemo_rl sft [options]")
    assert captured.err == ""


def test_help_behind_the_first_word_of_a_command_is_for_the_command(folder):
    program = "import sys; open('seen', 'w').write(sys.argv[1])"
    assert main(["run_cmd", "python", "-c", program, "--help"]) == 0
    assert (folder / "seen").read_text() == "--help"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("evl",), "error: there is no command 'evl': did you mean 'eval'?\n"),
        (("sft",), "error: there is no command 'sft': did you mean 'nemo_rl sft'?\n"),
        (("nemo_rl", "stf"), "error: there is no command 'nemo_rl stf': did you mean 'sft'?\n"),
        (("nemo_rl", "eval"), "error: there is no command 'nemo_rl eval': did you mean 'eval'?\n"),
        (("zzz",), "error: there is no command 'zzz': `ns --help` lists all of them\n"),
        (("--version=1",), "error: Option '--version' does not take a value.\n"),
        (("--cluster=x", "eval"), "error: there is no option --cluster before the command: write options behind it\n"),
        ((*SFT, "--num_gpu=1"), "error: there is no option --num_gpu: did you mean '--num_gpus'?\n"),
        (("nemo_rl", "sft"), "error: --output_dir, --hf_model are missing\n"),
        (("convert", "stray"), "error: 'stray' is one word too many: name options with --\n"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_2(words, told, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", told)


def test_a_mistake_has_no_traceback_and_a_bug_has_one():
    mistake = ns("evl")
    assert (mistake.returncode, mistake.stderr.count("\n")) == (2, 1)
    code = (
        "from skills_pipe.pipeline import cli\n"
        "from skills_pipe.pipeline.console import registry\n"
        "def broken(self): raise ZeroDivisionError('a bug')\n"
        "registry.Entry.load = broken\n"
        "cli.main(['eval'])\n"
    )
    bug = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Traceback" in bug.stderr
    assert "ZeroDivisionError: a bug" in bug.stderr


def test_an_interrupt_exits_with_130(monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(registry.Entry, "load", interrupted)
    assert main(["eval"]) == 130


def test_a_command_runs_word_for_word(folder):
    program = "import json, sys; json.dump(sys.argv[1:], open('seen.json', 'w'))"
    words = ["++x=a b", "$HOME", "it's", "--num_gpus=3", "*", "\\", ""]
    assert main(["run_cmd", "python", "-c", program, *words]) == 0
    assert json.loads((folder / "seen.json").read_text()) == words


def test_what_the_command_writes_is_shown(capsys):
    assert main(["run_cmd", "echo", "from the job"]) == 0
    assert capsys.readouterr().out.endswith("\nfrom the job\n")


def test_a_failed_job_exits_with_1_and_names_its_log(capsys):
    assert main(["run_cmd", "--command=echo the reason; exit 3"]) == 1
    error = capsys.readouterr().err
    assert "script" in error
    assert ".log" in error
    assert "the reason" in error


def test_a_dry_run_shows_the_plan_and_submits_nothing(folder, capsys):
    assert main([*SFT, "--num_training_jobs=2", "--dry_run"]) == 0
    shown = capsys.readouterr().out
    assert "sft-sft-1" in shown
    assert "sft-convert-final-ckpt" in shown
    assert not (folder / "records").exists()
    assert not (folder / "out").exists()


def test_a_dry_run_shows_the_very_scripts_that_a_submission_writes(folder, capsys):
    command = ["run_cmd", "--expname=e", "echo", "a b"]
    assert main([*command[:2], "--dry_run", "--show_scripts", *command[2:]]) == 0
    shown = capsys.readouterr().out
    assert main(command) == 0
    script = folder / "records" / "experiments" / "e" / "run-1" / "scripts" / "e.sh"
    assert f"==> {script} <==\n{script.read_text()}" in shown


def test_findings_of_all_kinds_are_told_at_once_and_nothing_is_submitted(folder, capsys):
    words = ["--hf_model=./nowhere", "--num_nodes=2", "++sft.max_num_stps=3"]
    assert main([*SFT[:3], *words, "--training_data=data.jsonl"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in told)
    for part in (
        "did you mean 'sft.max_num_steps'",
        "this machine is one node",
        "nowhere, which does not exist (--hf_model)",
    ):
        assert any(part in line for line in told)
    assert not (folder / "records").exists()


def test_options_without_effect_are_told(capsys):
    assert main([*SFT, "--check_mounted_paths", "--dry_run"]) == 0
    assert "check_mounted_paths has no effect" in capsys.readouterr().out


# --- what is imported


def imported_by(*words: str) -> set[str]:
    code = (
        "import sys\n"
        "from skills_pipe.pipeline.cli import main\n"
        f"code = main({list(words)!r})\n"
        "print('\\nimported:', *sorted(sys.modules), sep=' ')\n"
        "sys.exit(code)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("words", [("--help",), ("nemo_rl", "sft", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(words):
    found = imported_by(*words)
    assert "skills_pipe" in found
    assert found.isdisjoint(HEAVY)


def commands_among(modules: set[str]) -> set[str]:
    folder = "skills_pipe.pipeline.commands."
    return {name.removeprefix(folder) for name in modules if name.startswith(folder)}


def test_only_the_command_that_is_called_is_imported():
    assert commands_among(imported_by("--help")) == set()
    assert commands_among(imported_by("nemo_rl")) == set()
    assert commands_among(imported_by("status", "--help")) == {"status"}


def test_planning_imports_neither_torch_nor_a_scheduler_library():
    found = imported_by(*SFT, "--dry_run")
    assert {"yaml", "rich"} <= found
    assert found.isdisjoint({"torch", "transformers", "numpy", "nemo_run", "submitit", "pydantic"})


def test_planning_needs_omegaconf_only_for_what_is_not_plain():
    assert imported_by(*SFT, "--dry_run", "++policy.lr=1e-5").isdisjoint({"omegaconf", "hydra"})
    assert {"omegaconf", "hydra"} <= imported_by(*SFT, "--dry_run", "++policy.optimizer.kwargs.betas=[0.9,0.99]")


# --- Python


def test_every_command_is_a_function_with_the_same_options():
    for entry in ENTRIES:
        function = getattr(cli, entry.function)
        names = [parameter.name for parameter in inspect.signature(function).parameters.values()]
        assert names == ["ctx", *(option.name for option in entry.load().all_options)]
        assert entry.function in cli.__all__


def test_the_documented_example(folder, capsys):
    expname = "my-training-job"
    output_dir = str(folder / "workspace" / expname / "checkpoints")
    (folder / "records" / "benchmarks" / "gsm8k").mkdir(parents=True)
    (folder / "records" / "benchmarks" / "gsm8k" / "test.jsonl").write_text("{}\n")

    training = cli.sft_nemo_rl(
        ctx=wrap_arguments("++sft.max_num_steps=100"),
        cluster=None,
        expname=expname,
        output_dir=output_dir,
        hf_model="meta-llama/Llama-3.1-8B",
        num_training_jobs=4,
        training_data=str(folder / "data.jsonl"),
        dry_run=True,
    )
    evaluation = cli.eval(
        ctx=wrap_arguments(""),
        cluster=None,
        model=f"{output_dir}/final_hf_model",
        server_type="hf",
        output_dir=f"{output_dir}/results/",
        benchmarks="gsm8k",
        server_gpus=0,
        run_after=expname,
        dry_run=True,
    )
    assert [job.name for job in training.plan.jobs][-1] == f"{expname}-convert-final-ckpt"
    assert [job.name for job in evaluation.plan.jobs] == ["eval-gsm8k", "eval-summarize-results"]
    assert "did not" not in capsys.readouterr().out


def test_an_experiment_that_nobody_planned_is_told(folder):
    (folder / "records" / "benchmarks" / "gsm8k").mkdir(parents=True)
    (folder / "records" / "benchmarks" / "gsm8k" / "test.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="no experiment 'nobody'"):
        cli.eval(
            model=str(folder / "base"),
            server_type="hf",
            output_dir="r",
            benchmarks="gsm8k",
            run_after="nobody",
            dry_run=True,
        )


def test_a_submission_can_be_waited_for_by_a_later_command(folder):
    first = run_cmd(ctx=wrap_arguments("touch first"), expname="first")
    second = run_cmd(command="test -e first && touch second", expname="second", run_after=first)
    third = run_cmd(command="test -e second", expname="third", run_after=["first", second])
    assert first.succeeded
    assert third.succeeded
    assert (folder / "second").exists()


def test_a_later_command_does_not_start_after_a_failure(folder):
    with pytest.raises(JobFailed):
        run_cmd(command="exit 1", expname="first")
    with pytest.raises(UserError, match="did not end well"):
        run_cmd(command="touch second", expname="second", run_after="first")
    assert not (folder / "second").exists()


def test_python_calls_are_checked_like_command_lines():
    with pytest.raises(OptionError, match="did you mean 'num_gpus'"):
        sft_nemo_rl(output_dir="o", hf_model="base", num_gpu=1)
    with pytest.raises(OptionError, match="did you mean 'fsdp'"):
        sft_nemo_rl(output_dir="o", hf_model="base", backend="fdsp")
    with pytest.raises(PlanError, match=r"max_num_steps"):
        sft_nemo_rl(
            ctx=wrap_arguments("++sft.max_num_stps=1"), output_dir="o", hf_model="base", training_data="data.jsonl"
        )


def test_a_cluster_can_be_given_as_a_mapping(folder):
    shown = run_cmd(
        command="ls",
        cluster={"executor": "slurm", "job_dir": str(folder / "jobs"), "account": "me", "partition": "p"},
        dry_run=True,
    )
    assert "#SBATCH --partition=p" in shown.scripts["script"]


@pytest.fixture
def completed(monkeypatch, capsys):
    """What a shell is told when the user presses the tabulator behind a line."""

    def ask(line: str) -> list[str]:
        monkeypatch.setenv("_NS_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - (not line.endswith(" "))))
        with pytest.raises(SystemExit, match="0"):
            main([])
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out.split()

    return ask


def test_shells_can_complete_commands_and_options(completed):
    assert completed("ns e") == ["eval"]
    assert completed("ns nemo_rl ") == ["sft"]
    assert completed("ns nemo_rl sft --num_tr") == ["--num_training_jobs"]
    assert completed("ns nemo_rl sft --num_training_jobs=2 --num_tr") == []
    assert completed("ns nemo_rl sft --no-") == ["--no-reuse_code"]
    assert completed("ns nemo_rl sft --foo stray ++a=1 --expname x --skip") == ["--skip_hf_home_check"]
    assert completed("ns run_cmd python --num_tr") == []


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_shells_can_complete_every_option(entry, completed):
    options = [option for option in entry.load().all_options if option.kind is not Kind.ARGUMENT]
    assert sorted(completed(f"ns {entry.name} -")) == sorted(
        ["--help", "-h", *(flag for option in options for flag in option.on + option.off)]
    )


def test_completing_commands_imports_none():
    environment = os.environ | {"_NS_COMPLETE": "complete_bash", "COMP_WORDS": "ns ", "COMP_CWORD": "1"}
    code = (
        "import sys, atexit\n"
        "from skills_pipe.pipeline.cli import main\n"
        "atexit.register(lambda: print('imported:', *sys.modules))\n"
        "main([])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    names, _, modules = result.stdout.partition("imported:")
    assert {"eval", "nemo_rl"} <= set(names.split())
    assert commands_among(set(modules.split())) == set()


def test_the_console_script_is_this_program():
    script = Path(sys.executable).parent / "ns"
    assert subprocess.run([script, "--version"], capture_output=True, text=True).stdout == f"{__version__}\n"
