"""Fine-tune a model from a YAML file and overrides of its keys.

python examples/run_sft.py --config examples/configs/sft.yaml cluster.gpus_per_node=1 logger.wandb.name="sft-dev-1-gpu"
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from skills_pipe.training import sft

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "sft.yaml"


def main() -> int:
    """Train; the exit status is the trainer's."""
    parser = argparse.ArgumentParser(
        description="Fine-tune a model.",
        epilog="Every other argument overrides a key of the configuration.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", default=str(DEFAULT_CONFIG), help="YAML file (default: %(default)s)")
    options, overrides = parser.parse_known_args()
    return sft.main(["--config", options.config, *overrides])


if __name__ == "__main__":
    sys.exit(main())
