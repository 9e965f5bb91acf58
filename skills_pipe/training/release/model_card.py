"""``README.md`` of an exported model: what it was made of and how well it learnt, for readers and for the hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from skills_pipe.artifacts.names import LOSS_PICTURE, METRICS, TRAINING_LOGS
from skills_pipe.errors import DataError
from skills_pipe.training.checkpoint.changes import BASE_MODEL, DATA
from skills_pipe.training.config.dataset_names import is_id
from skills_pipe.training.monitoring.curves import Curves, draw_png
from skills_pipe.training.release.lineage import Lineage

CARD = "README.md"

_ROWS = 10

_CHANGES = 10
"""Changes of one job that the card shows."""

_WIDTH = 160
"""Characters that it shows of a value."""

_FINGERPRINTS = {DATA: "fingerprint of the data", BASE_MODEL: "fingerprint of the base model"}


def write_card(folder: Path, lineage: Lineage, metrics_files: Iterable[Path]) -> None:
    """Write the card of one exported checkpoint, and the loss curve up to its step.

    Args:
        folder: of the model, which exists.
        lineage: of the model.
        metrics_files: where the log of the training may lie; the first that has steps is taken, and none is needed.
    """
    curves = _curves(metrics_files, lineage.step)
    if curves is not None:
        draw_png(curves, folder / LOSS_PICTURE)
    (folder / CARD).write_text(card(lineage, curves), encoding="utf-8")


def metrics_files(lineage: Lineage, training_folder: Path) -> tuple[Path, ...]:
    """Where the log of a training may lie: where it was written, or beside the checkpoints, should these have moved."""
    written = lineage.training_config.get("logger", {}).get("log_dir")
    beside = [folder / TRAINING_LOGS for folder in (training_folder, training_folder.parent)]
    return tuple(folder / METRICS for folder in (*([Path(written)] if written else []), *beside))


def card(lineage: Lineage, curves: Curves | None) -> str:
    """Text of the card of one checkpoint."""
    config = lineage.training_config
    what = "the moving average of the weights" if lineage.ema else "the weights"
    base = _base(config)
    parts = [
        _front_matter(config),
        f"# {_name(base)}, fine-tuned",
        f"This is {_code(base)} after {lineage.step:,} steps of supervised fine-tuning: {what}, in {lineage.dtype}.",
        "## Data\n\n" + _table(("", ""), _data_rows(lineage)),
        "## Training\n\n" + _table(("", ""), _training_rows(config)) + _changes(lineage),
        "## Results\n\n" + _table(("metric", f"at step {lineage.step}"), _metric_rows(lineage.metrics)),
        *([] if curves is None else [_curve(curves)]),
        "## Origin\n\n" + _table(("", ""), _origin_rows(lineage)) + "\n\nAll of it, with every key of the "
        "configuration, is in `lineage.json`.",
    ]
    return "\n\n".join(parts) + "\n"


def average_card(lineages: Mapping[str, Any]) -> str:
    """Text of the card of an average, from the lineages of the averaged models by their names."""
    known: list[Mapping[str, Any]] = [value for value in lineages.values() if isinstance(value, Mapping)]
    config = known[-1].get("training_config", {}) if known else {}
    base = _base(config)
    rows = [(name, _shown(_metrics(value))) for name, value in lineages.items()]
    return (
        "\n\n".join(
            [
                _front_matter(config),
                f"# {_name(base)}, fine-tuned",
                f"The mean of the weights of {len(lineages)} checkpoints of a supervised fine-tuning of {_code(base)}.",
                "## Checkpoints\n\n" + _table(("model", "metrics"), rows),
                "What each of them was made of is in `lineage.json`.",
            ]
        )
        + "\n"
    )


def _front_matter(config: Mapping[str, Any]) -> str:
    """What the hub reads; only what is known for sure."""
    policy, data = config.get("policy", {}), config.get("data", {})
    values: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sft", *(["lora"] if _adapters(policy) else [])],
    }
    base = policy.get("model_name")
    if _is_hub_id(base):
        values["base_model"] = base
    datasets = [path for path in _paths(data.get("train")) if _is_hub_id(path)]
    if datasets:
        values["datasets"] = datasets
    return "---\n" + yaml.safe_dump(values, sort_keys=True) + "---"


def _data_rows(lineage: Lineage) -> list[tuple[str, str]]:
    data, sft = lineage.training_config.get("data", {}), lineage.counters
    return [
        ("trained on", _listed(_paths(data.get("train")))),
        ("validated on", _listed(_paths(data.get("validation")))),
        ("fingerprint", _code(lineage.data)),
        (f"documents seen{_counted_from(lineage)}", f"{sft['consumed_samples']:,}"),
        ("trained tokens seen", f"{sft['total_valid_tokens']:,}"),
    ]


def _training_rows(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    policy = config.get("policy", {})
    optimizer = policy.get("optimizer") or {}
    rows = [
        ("documents per step", policy.get("train_global_batch_size")),
        ("longest document", policy.get("max_total_sequence_length")),
        ("precision", policy.get("precision")),
        ("optimizer", f"{optimizer.get('name')} {optimizer.get('kwargs', {})}" if optimizer else None),
        ("gradients clipped at norm", policy.get("max_grad_norm")),
        ("adapters", _adapters(policy)),
        ("seed", config.get("sft", {}).get("seed")),
    ]
    return [(name, _code(value)) for name, value in rows if value is not None]


def _changes(lineage: Lineage) -> str:
    """What was trained with before; empty where nothing changed on the way."""
    rows = []
    for job in lineage.jobs:
        changes = [*job.get("changes", {}).items()]
        rows += [
            (str(job["first_step"]), _FINGERPRINTS.get(key, _code(key)), _short(value["before"]), _short(value["now"]))
            for key, value in changes[:_CHANGES]
        ]
        if len(changes) > _CHANGES:
            rows.append((str(job["first_step"]), f"{len(changes) - _CHANGES} more, in `lineage.json`", "", ""))
    if not rows:
        return ""
    head = ("from step", "changed", "before", "from then on")
    return f"\n\nThis holds of the last steps. What changed on the way:\n\n{_table(head, rows)}"


def _short(value: Any) -> str:
    """A value in one line of a table; the whole of it is in ``lineage.json``."""
    line = " ".join(str(value).replace("`", "'").split())
    return _code(line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…")


def _counted_from(lineage: Lineage) -> str:
    """Where documents were counted anew: with other data, or another order of them."""
    anew = [job["first_step"] for job in lineage.jobs if job.get("changes", {}).keys() & {DATA, "sft.seed"}]
    return f" from step {anew[-1]} on" if anew else ""


def _metric_rows(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    return [(name, f"{value:.6g}") for name, value in sorted(metrics.items())] or [("none was recorded", "")]


def _curve(curves: Curves) -> str:
    """The picture, and its numbers at a few steps."""
    smooth = curves.loss.smoothed()
    validated = dict(curves.validation.points)
    count = len(smooth.steps)
    chosen = sorted({round(index * (count - 1) / (_ROWS - 1)) for index in range(_ROWS)})
    rows = []
    for index in chosen:
        step = smooth.steps[index]
        latest = [value for at, value in validated.items() if at <= step]
        rows.append((f"{step:,}", f"{smooth.values[index]:.4f}", f"{latest[-1]:.4f}" if latest else ""))
    head = ("step", "training loss, smoothed", "last validation loss")
    return f"![Loss by step]({LOSS_PICTURE})\n\n{_table(head, rows)}"


def _origin_rows(lineage: Lineage) -> list[tuple[str, str]]:
    jobs = [
        f"from step {job['first_step']}: {'job ' + job['job'] if job['job'] else 'no Slurm'}, ranks: {job['ranks']}"
        for job in lineage.jobs
    ]
    codes = dict.fromkeys(job["code"] for job in lineage.jobs)
    versions = lineage.jobs[-1]["versions"] if lineage.jobs else {}
    return [
        ("base model", _code(lineage.base_model)),
        ("configuration", _code(lineage.config)),
        ("checkpoint", _code(lineage.checkpoint)),
        ("code that trained", ", ".join(map(_code, codes)) or "not recorded"),
        ("code that exported", _code(lineage.code)),
        ("jobs", "; ".join(jobs) or "not recorded"),
        ("with", ", ".join(f"{name} {version}" for name, version in versions.items()) or "not recorded"),
    ]


def _curves(paths: Iterable[Path], step: int) -> Curves | None:
    for path in paths:
        try:
            curves = Curves.read(path).until(step)
        except DataError:
            continue
        if curves.loss.steps:
            return curves
    return None


def _adapters(policy: Mapping[str, Any]) -> str | None:
    section = policy.get("dtensor_cfg") or {}
    lora, quantization = section.get("lora_cfg") or {}, section.get("quantization") or {}
    if not lora.get("enabled"):
        return None
    # Merged are they into the base model itself.
    below = f", trained over a base in 4 bit ({quantization.get('bnb_4bit_quant_type')})"
    lengths = "DoRA, " if lora.get("use_dora") else ""
    base = below if quantization.get("load_in_4bit") else ""
    return f"{lengths}rank {lora.get('dim')}, alpha {lora.get('alpha')}{base}"


def _base(config: Mapping[str, Any]) -> str:
    return str(config.get("policy", {}).get("model_name", "the base model"))


def _name(base: str) -> str:
    return Path(base).name


def _paths(sections: Any) -> list[str]:
    """Paths and names of the datasets of a section, which is one dataset or a list of them."""
    each = sections if isinstance(sections, Sequence) else [sections]
    found = [next((s[key] for key in ("data_path", "dataset_name") if s.get(key)), None) for s in each if s]
    return [str(path) for path in found if path]


def _metrics(value: Any) -> Mapping[str, float]:
    return value.get("metrics", {}) if isinstance(value, Mapping) else {}


def _shown(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in sorted(metrics.items()))


def _is_hub_id(name: Any) -> bool:
    """Whether a name is that of something on the hub, for sure: no file of rows, nor a path of where this runs."""
    return isinstance(name, str) and is_id(name) and not Path(name).parent.exists()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(_code, names)) or "nothing"


def _code(value: Any) -> str:
    return f"`{value}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
