"""``ns convert``: make a Hugging Face model of the checkpoints of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands.conversion import LAST, Conversion, JobSetting, conversion, read_step, read_steps
from skills_pipe.pipeline.console.command import Command
from skills_pipe.pipeline.launch import launch
from skills_pipe.pipeline.options.declaration import option, switch
from skills_pipe.pipeline.options.groups import EXPNAME_HELP, JobOptions, resources
from skills_pipe.pipeline.plan import Plan


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(JobOptions):
    """Conversion."""

    input_model: str = option(metavar="PATH", help="folder of a training run, the one with checkpoints/step_N")
    output_model: str = option(metavar="PATH", help="folder for the Hugging Face model")
    conversion_step: str = option(LAST, parse=read_step, metavar="N|last", help="checkpoint to convert")
    average_steps: tuple[int, ...] = option(
        (), parse=read_steps, metavar="N,N,...", help="checkpoints to average into one model"
    )
    remove_checkpoints_after_average: bool = switch(
        help="delete the models of the averaged steps afterwards; the checkpoints stay"
    )
    adapter_only: bool = switch(
        help="of a training of adapters: the adapters alone, as a folder for peft, instead of the merged model"
    )
    expname: str = option("conversion", help=EXPNAME_HELP)


def plan(options: ConvertOptions, extras: tuple[str, ...], cluster: ClusterConfig) -> Plan:
    """One conversion on CPU cores, or one for each step and their average."""
    if options.average_steps and options.conversion_step != LAST:
        raise OptionError("--average_steps and --conversion_step exclude each other", fix="drop one of them")
    if options.remove_checkpoints_after_average and not options.average_steps:
        raise OptionError("--remove_checkpoints_after_average needs --average_steps", fix="name the steps to average")
    if options.adapter_only and options.average_steps:
        raise OptionError(
            "--adapter_only and --average_steps exclude each other",
            fix="average the merged models: averaged adapters are not those of the averaged weights",
        )
    output = cluster.absolute(options.output_model)
    stages, jobs = conversion(
        Conversion(
            training_dir=cluster.absolute(options.input_model),
            output=output,
            step=options.conversion_step,
            average=options.average_steps,
            remove=options.remove_checkpoints_after_average,
            adapter_only=options.adapter_only,
        ),
        JobSetting(
            expname=options.expname,
            log_dir=cluster.absolute(options.log_dir) if options.log_dir else f"{output}-conversion-logs",
            resources=resources(options, cluster, num_gpus=0),
            working_dir=cluster.working_dir,
            installation_command=options.installation_command,
        ),
    )
    return Plan(
        expname=options.expname,
        command="convert",
        stages=stages,
        jobs=jobs,
        mounts=cluster.mounts,
        run_after=options.run_after,
    )


COMMAND = Command(options=ConvertOptions, run=launch(plan))
