"""A processor made of others, as configurations for the Speech Data Processor toolkit write it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from skills_pipe.training.prepare.processor import Batch, Processor, Workspace


@dataclass(frozen=True, kw_only=True)
class MergeProcessor(Processor):
    """Applies its processors one after the other in one pass.

    Args:
        processor_configs: the processors, built; each has its own line of figures.
    """

    processor_configs: list[Processor] = field(default_factory=list)

    def stream(self, batches: Iterable[Batch], workspace: Workspace) -> Iterable[Batch]:
        """What the last of the processors lets through."""
        for processor in self.processor_configs:
            batches = processor.stream(batches, workspace)
        return batches

    def test(self) -> None:
        """Run the test cases of all of them."""
        super().test()
        for processor in self.processor_configs:
            processor.test()
