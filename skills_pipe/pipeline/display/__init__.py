"""What a person sees of plans and runs: trees and tables on a terminal, plain lines elsewhere."""

from skills_pipe.pipeline.display.board import LiveBoard
from skills_pipe.pipeline.display.examination import show_examination
from skills_pipe.pipeline.display.making import show_differences, show_making
from skills_pipe.pipeline.display.plan import show_decisions, show_findings, show_plan, show_scripts
from skills_pipe.pipeline.display.runs import show_runs
from skills_pipe.pipeline.display.status import show_advice, show_curve, show_status

__all__ = [
    "LiveBoard",
    "show_advice",
    "show_curve",
    "show_decisions",
    "show_differences",
    "show_examination",
    "show_findings",
    "show_making",
    "show_plan",
    "show_runs",
    "show_scripts",
    "show_status",
]
