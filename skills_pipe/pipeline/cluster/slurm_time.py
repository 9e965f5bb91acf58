"""Time limits in the forms that Slurm accepts, as seconds and back."""

from __future__ import annotations

import re

from skills_pipe.errors import UserError

_FORMS = "minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, days-hours:minutes:seconds"


def parse_time(text: str | int) -> int:
    """Seconds of a Slurm time limit; ``DD:HH:MM:SS``, as NeMo-RL writes it, is understood too.

    Raises:
        UserError: the text is none of Slurm's forms.
    """
    text = str(text).strip()
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)((?::\d+)*)", text)
    parts = [int(part) for part in match.group(3).split(":")[1:]] if match else []
    if not match or len(parts) > (2 if match.group(1) else 3):
        raise UserError(f"{text!r} is not a time limit", fix=f"write it as one of: {_FORMS}")
    first = int(match.group(2))
    if match.group(1):
        hours, minutes, seconds = (first, *parts, 0, 0)[:3]
        return _seconds(int(match.group(1)), hours, minutes, seconds)
    match len(parts):
        case 0:
            return _seconds(0, 0, first, 0)
        case 1:
            return _seconds(0, 0, first, parts[0])
        case 2:
            return _seconds(0, first, *parts)
        case _:
            return _seconds(first, *parts)


def format_time(seconds: int) -> str:
    """``D-HH:MM:SS``, the form that has one meaning everywhere in Slurm."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{seconds:02}"


def _seconds(days: int, hours: int, minutes: int, seconds: int) -> int:
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
