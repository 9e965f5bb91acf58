"""The whole pipeline on this machine in a few minutes: ``make demo``.

Makes arithmetic word problems and a random base model, then prepares the data, trains in two chained jobs, averages
three checkpoints into a Hugging Face model, and evaluates it beside the base model on problems with operand pairs that
training never saw. Everything between goes through the same calls, and the same plan, as on a Slurm cluster.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import time
from pathlib import Path

from generations import write_generations
from report import Figures, show_report

from skills_pipe.pipeline.cli import Arguments, eval, prepare_data, sft_nemo_rl, wrap_arguments

STEPS, WARMUP, SAVE_PERIOD = 900, 50, 50
TRAINING_KEYS = (
    "++sft.max_num_epochs=100",
    "++sft.val_period=150",
    "++sft.val_batches=4",
    "++sft.val_global_batch_size=64",
    "++policy.train_global_batch_size=64",
    "++policy.train_micro_batch_size=64",
    "++policy.max_total_sequence_length=128",
    "++policy.precision=float32",
    "++policy.optimizer.kwargs.lr=4e-3",
    f"++checkpointing.save_period={SAVE_PERIOD}",
    "++checkpointing.keep_top_k=null",
)
PROMPT = f"++prompt_config={Path(__file__).with_name('prompt.yaml').resolve()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("demo-output"), help="removed first if it is there")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of training; a multiple of {2 * SAVE_PERIOD}")
    arguments = parser.parse_args()
    if arguments.steps < 4 * SAVE_PERIOD or arguments.steps % (2 * SAVE_PERIOD):
        parser.error(f"--steps={arguments.steps}: give a multiple of {2 * SAVE_PERIOD}, from {4 * SAVE_PERIOD} on")
    folder = arguments.output_dir.resolve()
    _start_anew(folder)
    os.environ["SKILLS_PIPE_JOB_DIR"] = str(folder / "runs")
    # Threads of so small a step meet every few microseconds. By default they wait for each other at full speed, which
    # on a busy machine keeps the one that is waited for from running; waiting less long costs nothing on an idle one.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

    # Imported here: transformers takes seconds, and a mistake in the options is told at once.
    from base_model import make_base_model

    os.chdir(folder)
    texts = write_generations(folder / "generations")
    make_base_model(folder / "base-model", texts)

    started = time.monotonic()
    run_pipeline(folder, arguments.steps)
    show_report(Figures.collect(folder, seconds=time.monotonic() - started), folder)


def run_pipeline(folder: Path, steps: int) -> None:
    """Prepare, evaluate the base model, train, average, evaluate: five calls, each a plan of one or more jobs."""
    base, final = folder / "base-model", folder / "final_hf_model"
    for name in ("train", "validation"):
        prepare_data(
            ctx=words(
                # Several patterns may stand here, apart by spaces: so none of the folder's own may.
                f"++input_files=generations/{name}/output-rs*.jsonl",
                f"++output_path={folder}/{name}.jsonl",
                PROMPT,
                f"++tokenizer={base}",
            ),
            expname=f"demo-data-{name}",
        )
    prepare_data(ctx=words(), benchmarks=["arithmetic"], data_dir=str(folder / "data"), expname="demo-bench")
    evaluate(folder, model=base, name="before", after="demo-bench")
    sft_nemo_rl(
        ctx=words(*TRAINING_KEYS, *keys_of_length(steps)),
        expname="demo-sft",
        output_dir=str(folder),
        hf_model=str(base),
        training_data=str(folder / "train.jsonl"),
        validation_data=str(folder / "validation.jsonl"),
        num_training_jobs=2,
        average_steps=",".join(str(steps - back * SAVE_PERIOD) for back in (2, 1, 0)),
        run_after=["demo-data-train", "demo-data-validation"],
    )
    evaluate(folder, model=final, name="after", after="demo-sft")


def keys_of_length(steps: int) -> tuple[str, ...]:
    """What follows from the number of steps; half of them are the first job's."""
    schedule = (
        f"[{{name:torch.optim.lr_scheduler.LinearLR,kwargs:{{start_factor:0.02,total_iters:{WARMUP}}}}},"
        f"{{name:torch.optim.lr_scheduler.CosineAnnealingLR,kwargs:{{T_max:{steps - WARMUP},eta_min:1e-4}}}},"
        f"{{milestones:[{WARMUP}]}}]"
    )
    return (
        f"++sft.max_num_steps={steps}",
        f"++policy.scheduler={schedule}",
        f"++checkpointing.stop_after_steps={steps // 2}",
    )


def evaluate(folder: Path, *, model: Path, name: str, after: str) -> None:
    """Accuracy of ``model`` on the held-out problems, below ``results-<name>``."""
    eval(
        ctx=words(PROMPT, "++inference.tokens_to_generate=64"),
        expname=f"demo-eval-{name}",
        model=str(model),
        server_type="hf",
        benchmarks="arithmetic",
        data_dir=str(folder / "data"),
        output_dir=str(folder / f"results-{name}"),
        run_after=[after],
    )


def words(*arguments: str) -> Arguments:
    """The arguments of an inner program, whatever spaces they hold."""
    return wrap_arguments(shlex.join(arguments))


def _start_anew(folder: Path) -> None:
    """Remove what an earlier demo left; a folder that is no demo's is not touched."""
    marker = folder / ".skills-pipe-demo"
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise SystemExit(f"{folder} exists and was not made by the demo: choose another --output_dir")
    if folder.exists():
        print(f"removing what an earlier demo left in {folder}")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    marker.touch()


if __name__ == "__main__":
    main()
