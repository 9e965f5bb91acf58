"""Which metrics of checkpoints compare: losses on other held-out data do not tell which step is the better one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from skills_pipe.artifacts.manifest import Manifest

VALIDATION: Final = "validation"
"""Fact of a checkpoint: fingerprint of what its step was, or would have been, validated on."""

_OF_VALIDATION = "val:"


def comparable_metrics(manifests: Mapping[int, Manifest]) -> dict[int, Mapping[str, float]]:
    """Step -> its metrics, but those of validations on other data than the last step's, once there are some on these.

    Args:
        manifests: of whole checkpoints, by their steps.
    """
    last = manifests[max(manifests)].facts.get(VALIDATION) if manifests else None
    same = {step for step, manifest in manifests.items() if is_same_validation(manifest, last)}
    metrics = {step: _all(manifest) for step, manifest in manifests.items()}
    if not any(name.startswith(_OF_VALIDATION) for step in same for name in metrics[step]):
        return metrics
    return {step: found if step in same else _of_training(found) for step, found in metrics.items()}


def is_same_validation(manifest: Manifest, fingerprint: str | None) -> bool:
    """Whether a checkpoint was validated on this; what is not known is taken for the same."""
    return None in (fingerprint, manifest.facts.get(VALIDATION)) or manifest.facts[VALIDATION] == fingerprint


def _all(manifest: Manifest) -> Mapping[str, float]:
    metrics: Mapping[str, float] = manifest.facts["metrics"]
    return metrics


def _of_training(metrics: Mapping[str, float]) -> Mapping[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith(_OF_VALIDATION)}
