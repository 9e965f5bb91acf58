"""Options that other trainers have, and keys that are written like options: what to write here."""

from __future__ import annotations

from skills_pipe.pipeline.commands.sft.keys import FLAGS

_CONFIG = (
    "only the trainer itself, python -m skills_pipe.training.sft, reads a YAML file; write its keys as ++key=value, "
    "or a section as '++section={key: value}'"
)


def in_place_of(flag: str) -> str | None:
    """What to do in the place of an option that there is not; None where nothing is called so.

    Args:
        flag: as it was written, such as ``--learning_rate`` or ``--policy.lr``.
    """
    if flag == "--config":
        return _CONFIG
    # Only here: it takes longer than all else that a mistyped option asks for.
    from skills_pipe.training.config.read import key_called, known_keys

    name = flag.lstrip("-").replace("-", "_")
    key = key_called(name)
    if key is None:
        return None
    if key in FLAGS:
        return f"did you mean {FLAGS[key]}?"
    if any(other.startswith(f"{key}.") for other in known_keys()):
        return f"that is a section of the trainer's keys, ++{key}"
    # What is called otherwise elsewhere may take other values there.
    same = key == name or key.endswith(f".{name}")
    return f"keys of the trainer start with ++: ++{key}=VALUE" if same else f"the trainer's key for it is ++{key}"
