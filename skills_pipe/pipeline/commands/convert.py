"""``ns convert``: make a Hugging Face model of the checkpoints of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

from skills_pipe.artifacts.names import ADAPTER_OF_STEP, CHECKPOINTS, parse_step, step_directory
from skills_pipe.errors import OptionError
from skills_pipe.pipeline.checks.finding import Checked, Finding, error
from skills_pipe.pipeline.checks.request import Check, Request
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands.conversion import (
    LAST,
    Conversion,
    JobSetting,
    check_output,
    conversion,
    read_step,
    read_steps,
)
from skills_pipe.pipeline.commands.release import (
    ARCHIVE_SUFFIX,
    Release,
    Stages,
    check_token,
    read_archive,
    read_repo,
    release,
    unpacking,
)
from skills_pipe.pipeline.console.command import Command
from skills_pipe.pipeline.launch import launch
from skills_pipe.pipeline.options.declaration import option, switch
from skills_pipe.pipeline.options.groups import EXPNAME_HELP, JobOptions, resources
from skills_pipe.pipeline.plan import Plan


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(JobOptions):
    """Conversion."""

    input_model: str = option(
        metavar="PATH", help="folder of a training run, the one with checkpoints/step_N; or a .nemo archive"
    )
    output_model: str = option(metavar="PATH", help="folder for the Hugging Face model")
    conversion_step: str = option(
        LAST, parse=read_step, metavar="N|last|best", help="checkpoint to convert; best: by checkpointing.metric_name"
    )
    average_steps: tuple[int, ...] = option(
        (), parse=read_steps, metavar="N,N,...", help="checkpoints to average into one model"
    )
    remove_checkpoints_after_average: bool = switch(
        help="delete the models of the averaged steps afterwards; the checkpoints stay"
    )
    adapter_only: bool = switch(
        help="of a training of adapters: the adapters alone, as a folder for peft, instead of the merged model"
    )
    validate: bool = switch(
        help="load the model again and compare its validation loss with the one that the trainer saw at that step"
    )
    num_gpus: int = option(0, help="GPUs for --validate; 0 computes on CPU cores")
    archive: str | None = option(
        None,
        parse=read_archive,
        metavar="PATH",
        help="also pack the model, with its prompt template, into a .nemo file",
    )
    push_to_hub: str | None = option(
        None, parse=read_repo, metavar="ORG/NAME", help="also put the model on the Hugging Face hub, with HF_TOKEN"
    )
    hub_public: bool = switch(help="a repository that --push_to_hub makes is public; else it is private")
    expname: str = option("conversion", help=EXPNAME_HELP)


def plan(options: ConvertOptions, extras: tuple[str, ...], cluster: ClusterConfig) -> Plan:
    """One conversion on CPU cores, or one for each step and their average; then what is to be done with the model."""
    _check(options)
    output = cluster.absolute(options.output_model)
    check_output(output, cluster.absolute(options.input_model), options.average_steps, flag="--output_model")
    around = JobSetting(
        expname=options.expname,
        log_dir=cluster.absolute(options.log_dir) if options.log_dir else f"{output}-conversion-logs",
        resources=resources(options, cluster, num_gpus=0),
        working_dir=cluster.working_dir,
        installation_command=options.installation_command,
    )
    stages, jobs = release(
        Release(
            model=output,
            validate=options.validate,
            validation=resources(options, cluster, num_gpus=options.num_gpus),
            archive=cluster.absolute(options.archive) if options.archive else None,
            repo=options.push_to_hub,
            public=options.hub_public,
        ),
        around,
        _made(options, cluster, output, around),
    )
    return Plan(
        expname=options.expname,
        command="convert",
        stages=stages,
        jobs=jobs,
        mounts=cluster.mounts,
        run_after=options.run_after,
    )


def check_steps(request: Request[ConvertOptions]) -> Checked:
    """Whether the steps that are named are there, of a training on this machine that is not still to come."""
    subject, options = "steps to convert", request.options
    training = Path(request.cluster.absolute(options.input_model))
    if not request.cluster.is_local or options.run_after or not (training / CHECKPOINTS).is_dir():
        return Checked(subject=subject, left_out="the checkpoints cannot be looked at, or are still to come")
    there = sorted(step for path in (training / CHECKPOINTS).iterdir() if (step := parse_step(path.name)) is not None)
    # A model that has been made already may have outlived its checkpoint; one that is to be made otherwise may not.
    made = [stage for stage in request.plan.stages if stage.name not in request.settled]
    steps = [int(step) for stage in made if (step := stage.options.get("step", LAST)).isdecimal()]
    missing = [step for step in steps if step not in there]
    findings = [
        error(
            f"there is no checkpoint of step {step} in {training / CHECKPOINTS}",
            where="--average_steps" if options.average_steps else "--conversion_step",
            fix=f"choose among {', '.join(map(str, there))}" if there else "train first",
        )
        for step in missing
    ]
    adapted = any((training / CHECKPOINTS / step_directory(step) / ADAPTER_OF_STEP).exists() for step in there)
    if options.adapter_only and made and there and not adapted:
        findings.append(
            error(
                f"{training} trained all weights, and no adapters",
                where="--adapter_only",
                fix="leave it out: what is exported is the whole model",
            )
        )
    return Checked(subject=subject, findings=tuple(findings))


def check_training_folder(request: Request[ConvertOptions]) -> list[Finding]:
    """A folder that lies inside of a training: that of its checkpoints, or one of these."""
    given = PurePath(request.options.input_model)
    missing = f"{request.cluster.absolute(request.options.input_model)}/{CHECKPOINTS}"
    step = parse_step(given.name)
    checkpoints = given if step is None else given.parent
    if missing not in request.missing or checkpoints.name != CHECKPOINTS:
        return []
    what = "checkpoints" if step is None else f"the checkpoint of step {step}"
    chosen = "" if step is None else f", with --conversion_step={step}"
    fix = f"give the folder above: {checkpoints.parent}{chosen}"
    return [
        error(
            f"{given} holds {what}, and is not the folder of a training", where="--input_model", fix=fix, path=missing
        )
    ]


CHECKS: dict[str, Check[ConvertOptions]] = {
    "token of the hub": check_token,
    "folder of the training": check_training_folder,
    "steps to convert": check_steps,
}
"""Subject -> check, of this command."""

COMMAND = Command(options=ConvertOptions, run=launch(plan, checks=CHECKS))


def _made(options: ConvertOptions, cluster: ClusterConfig, output: str, around: JobSetting) -> Stages:
    """Stages and jobs that make the model."""
    source = cluster.absolute(options.input_model)
    if source.endswith(ARCHIVE_SUFFIX):
        return unpacking(source, output, around)
    return conversion(
        Conversion(
            training_dir=source,
            output=output,
            step=options.conversion_step,
            average=options.average_steps,
            remove=options.remove_checkpoints_after_average,
            adapter_only=options.adapter_only,
        ),
        around,
    )


def _check(options: ConvertOptions) -> None:
    if options.average_steps and options.conversion_step != LAST:
        raise OptionError("--average_steps and --conversion_step exclude each other", fix="drop one of them")
    if options.remove_checkpoints_after_average and not options.average_steps:
        raise OptionError("--remove_checkpoints_after_average needs --average_steps", fix="name the steps to average")
    if options.adapter_only and options.average_steps:
        raise OptionError(
            "--adapter_only and --average_steps exclude each other",
            fix="average the merged models: averaged adapters are not those of the averaged weights",
        )
    if options.input_model.endswith(ARCHIVE_SUFFIX) and _chooses(options):
        raise OptionError(f"an archive holds one model: {_chooses(options)} has no meaning for it", fix="leave it out")
    if options.validate and options.average_steps:
        raise OptionError(
            "--validate and --average_steps exclude each other",
            fix="validate the steps one by one: no trainer has seen the loss of their average",
        )
    for name in ("validate", "archive"):
        if options.adapter_only and getattr(options, name):
            raise OptionError(f"--adapter_only and --{name} exclude each other", fix=f"--{name} the merged model")
    if options.num_gpus < 0:
        raise OptionError(f"--num_gpus is {options.num_gpus}", fix="set it to 0 or more")
    for name, needs in (("num_gpus", "validate"), ("hub_public", "push_to_hub")):
        if getattr(options, name) and not getattr(options, needs):
            raise OptionError(f"--{name} needs --{needs}", fix=f"drop --{name}, or add --{needs}")


def _chooses(options: ConvertOptions) -> str | None:
    """The first option that chooses among checkpoints."""
    chosen = {
        "--conversion_step": options.conversion_step != LAST,
        "--average_steps": bool(options.average_steps),
        "--adapter_only": options.adapter_only,
    }
    return next((name for name, given in chosen.items() if given), None)
