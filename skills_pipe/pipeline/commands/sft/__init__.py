"""``ns nemo_rl sft``: its options, the plan that they make, and what is checked of it before the queue."""

from skills_pipe.pipeline.commands.sft.command import COMMAND, plan
from skills_pipe.pipeline.commands.sft.options import SftOptions
from skills_pipe.pipeline.commands.sft.training import ENTRY

__all__ = ["COMMAND", "ENTRY", "SftOptions", "plan"]
