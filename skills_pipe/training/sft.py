"""Supervised fine-tuning of one model: the program of a training job.

::

    python -m skills_pipe.training.sft --config sft.yaml policy.model_name=/models/base ++sft.max_num_steps=100
    torchrun --standalone --nproc-per-node=8 -m skills_pipe.training.sft ...

Without ``--config`` the packaged defaults are used; ``--strict=false`` ignores unknown keys. It ends with 0 when the
work is complete, 75 when the next job should go on, 2 for a mistake of the user's and 1 otherwise; the verdict file
says the same to programs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from skills_pipe.training.importing import importing
from skills_pipe.training.program import end


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the arguments say; returns the exit status."""
    arguments, overrides = _parse(sys.argv[1:] if argv is None else argv)
    with importing():
        # Not above: it takes seconds, which nobody waits for who mistypes an option or asks for help.
        from skills_pipe.training.job import train_as_configured
    return train_as_configured(arguments.config, overrides, strict=arguments.strict)


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m skills_pipe.training.sft",
        description="Fine-tune a model; see docs/configuration.md for the keys.",
        epilog="Everything else is an override of the configuration: key=value, ++new.key=value, ~key.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, help="YAML file laid over the packaged defaults")
    parser.add_argument(
        "--strict", type=_truth, default=True, metavar="true|false", help="refuse unknown keys (default) or ignore them"
    )
    arguments, overrides = parser.parse_known_args(argv)
    return arguments, overrides


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError("true or false")
    return text.lower() == "true"


if __name__ == "__main__":
    end(main)
