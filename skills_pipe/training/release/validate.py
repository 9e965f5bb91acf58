"""Load an exported model again, and compare its loss with the one that the trainer saw at that step.

::

    python -m skills_pipe.training.release.validate --model=results/final_hf_model

Weights, tokenizer and chat template are those of the export, rows and their treatment those of the training, from
``lineage.json``; ``key=value`` changes them, as ``data.val_data_path=/new/place.jsonl`` does for rows that have moved.
It ends with 0 when the losses are equal within rounding, with 1 when they are not, and with 2 when there is nothing
to compare. A report is there only while the last comparison that was to write it has found them equal.
"""

from __future__ import annotations

import argparse
import copy
import math
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.artifacts.atomic import write_json
from skills_pipe.artifacts.names import manifest_path, validation_report
from skills_pipe.errors import CheckpointError, UserError
from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.checkpoint.export import DTYPES
from skills_pipe.training.checkpoint.hf_folder import ADAPTER
from skills_pipe.training.checkpoint.ranks import on_first
from skills_pipe.training.config import ObjectConfig, TrainingConfig, load_config
from skills_pipe.training.data.from_config import load_validation
from skills_pipe.training.data.template import INFER
from skills_pipe.training.data.tokenizer import load_tokenizer
from skills_pipe.training.distributed import World, join
from skills_pipe.training.models.load import open_model
from skills_pipe.training.models.spec import ModelSpec
from skills_pipe.training.program import leave
from skills_pipe.training.release.lineage import Lineage
from skills_pipe.training.release.whole import check_whole
from skills_pipe.training.validation import Validation

_OVERALL = "val:val_loss"
_LOSS = re.compile(r"val:(.+/)?val_loss")
"""Trainers have other metrics besides, of answers that the model gave."""

_ROUNDING = {"float32": 1e-5, "bfloat16": 5e-4, "float16": 5e-4}
"""Relative difference that another order of sums makes, by the precision that the trainer computed in."""
_ROUNDED_WEIGHTS = 2e-2
"""The same where the exported weights are rounded, and the trained ones were not."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Losses of a model by the trainer's names of them, in nats per supervised token.

    Attributes:
        step: of the training.
        trained: what the trainer saw.
        exported: what the exported model gives.
        tolerance: largest relative difference that is rounding.
    """

    step: int
    trained: Mapping[str, float]
    exported: Mapping[str, float]
    tolerance: float

    @property
    def equal(self) -> bool:
        """Whether all losses are the same but for rounding."""
        return all(abs(self.exported[name] - loss) <= self.tolerance * abs(loss) for name, loss in self.trained.items())

    def lines(self) -> list[str]:
        """One sentence for each loss."""
        return [
            f"{name}: {loss:.6f} in training, {self.exported[name]:.6f} of the exported model"
            for name, loss in self.trained.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain value for a report."""
        return {
            "step": self.step,
            "trained": dict(self.trained),
            "exported": dict(self.exported),
            "tolerance": self.tolerance,
            "equal": self.equal,
        }


def validate(model: Path, world: World, overrides: Sequence[str] = (), *, tolerance: float | None = None) -> Comparison:
    """Losses of an exported model on the validation data of its training; on every rank.

    Args:
        model: folder that one checkpoint was exported to.
        world: the processes that share the work.
        overrides: of the training configuration.
        tolerance: relative; None: by the precision of training and export.

    Raises:
        CheckpointError: the folder is damaged or no such model, or its training saw no loss at that step.
        UserError: the data cannot be used any more.
    """
    check_whole(model)
    lineage = Lineage.read(model)
    trained = trained_losses(lineage, model)
    with nullcontext() if world.size > 1 else tempfile.TemporaryDirectory() as cache:
        config = configuration(lineage, model, [*([f"data.cache_dir={cache}"] if cache else []), *overrides])
        tokenizer = load_tokenizer(str(model))
        validation = Validation.of(config, load_validation(config, tokenizer))
        network, weights = open_model(ModelSpec(name=str(model)))
        # An optimizer without state: nothing is trained.
        still = FsdpSettings(
            optimizer=ObjectConfig(name="torch.optim.SGD", kwargs={"lr": 0.0}), dtype=DTYPES[config.policy.precision]
        )
        losses = validation.losses(FsdpBackend(network, still, world, weights), world)
    found = {_OVERALL: losses.overall} | {f"val:{name}/val_loss": loss for name, loss in losses.by_name.items()}
    missing = [name for name in trained if name not in found]
    if missing:
        raise CheckpointError(
            f"there is no {missing[0]} to compare with",
            where="data.validation",
            fix="validate on the data sets of the training, by their names",
        )
    return Comparison(
        step=lineage.step,
        trained=trained,
        exported={name: found[name] for name in trained},
        tolerance=tolerance if tolerance is not None else rounding(lineage, model),
    )


def trained_losses(lineage: Lineage, model: Path) -> dict[str, float]:
    """The validation losses that the trainer saw when it saved this checkpoint.

    Raises:
        CheckpointError: it saw none, not of these weights or of their base in 4 bit, or one that is no number.
    """
    if lineage.ema:
        raise CheckpointError(
            "the trainer validates the weights, and not their moving average",
            where=str(model),
            fix="validate an export without --ema",
        )
    if (lineage.training_config["policy"]["dtensor_cfg"].get("quantization") or {}).get("load_in_4bit"):
        raise CheckpointError(
            "the losses of the training are those of a base in 4 bit, and this model is made of the whole one",
            where=str(model),
            fix="evaluate it instead, or train with policy.dtensor_cfg.quantization.load_in_4bit=false",
        )
    losses = {name: value for name, value in lineage.metrics.items() if _LOSS.fullmatch(name)}
    if not losses:
        raise CheckpointError(
            f"the training did not validate at step {lineage.step}: there is no loss to compare with",
            where=str(model),
            fix="export a step at which it did, or train with sft.val_at_end=true",
        )
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise CheckpointError(
                f"{name} was {loss} in the training at step {lineage.step}: no model can be compared with that",
                where=str(model),
                fix="export a step at which it was a number, and look at the curve of this training",
            )
    return losses


def configuration(lineage: Lineage, model: Path, overrides: Sequence[str]) -> TrainingConfig:
    """The configuration of the training, for its exported model: with the tokenizer and the template of the export."""
    tree = copy.deepcopy(dict(lineage.training_config))
    policy = tree["policy"]
    template = policy["tokenizer"]["chat_template"]
    own = template if template is None or template.lower() == INFER else "default"
    policy["model_name"] = str(model)
    policy["hf_config_overrides"] = {}
    policy["tokenizer"] |= {"name": None, "chat_template": own}
    for section in ("dtensor_cfg", "megatron_cfg"):
        # The lineage has the names of the variables only; none of them is needed here.
        policy[section]["env_vars"] = {}
    return load_config(tree, overrides)


def rounding(lineage: Lineage, model: Path) -> float:
    """The relative difference between two losses that says nothing."""
    precision = lineage.training_config["policy"]["precision"]
    # bfloat16 weights are what a trainer in bfloat16 computed with; adapters are rounded when they are merged.
    same = lineage.dtype in ("float32", precision) and not (model / ADAPTER).is_dir()
    return _ROUNDING[precision] if same else max(_ROUNDING[precision], _ROUNDED_WEIGHTS)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of :func:`validate`."""
    parser = argparse.ArgumentParser(
        prog="python -m skills_pipe.training.release.validate", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the exported model")
    parser.add_argument("--report", type=Path, help="JSON file to write the losses to, when they are equal")
    parser.add_argument("--tolerance", type=float, help="relative difference (default: by the precision)")
    given, overrides = parser.parse_known_args(argv)
    disable_progress_bar()
    with join() as world:
        try:
            if given.report is not None:
                on_first(lambda: _take_back(given.report))
            comparison = validate(given.model, world, overrides, tolerance=given.tolerance)
            if world.first:
                print("\n".join(comparison.lines()))
            if comparison.equal and given.report is not None:
                on_first(lambda: _publish(given.report, comparison))
        except UserError as error:
            if world.first:
                print(error, file=sys.stderr)
            return error.exit_code
    if not comparison.equal and world.first:
        print(f"the losses differ by more than rounding ({comparison.tolerance:g} of them)", file=sys.stderr)
        earlier = validation_report(given.model)
        if earlier.exists():
            print(f"{earlier} is of an earlier comparison, which found them equal: remove it", file=sys.stderr)
    return 0 if comparison.equal else 1


def _take_back(report: Path) -> None:
    """What an earlier comparison said; its manifest first, by which the launcher knows that nothing is left to do."""
    for path in (manifest_path(report), report):
        path.unlink(missing_ok=True)


def _publish(report: Path, comparison: Comparison) -> None:
    write_json(report, comparison.to_json())
    manifests.seal(report, kind="validation", facts=comparison.to_json())


if __name__ == "__main__":
    leave(main())
