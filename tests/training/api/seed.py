"""Model and rows for the classes of the API."""

from __future__ import annotations

import json

from tests.training.tiny import save_tiny_model


def alpaca_rows(count, *, start=0):
    return [
        {"instruction": f"Add {index} and {index % 7}.", "input": "", "output": str(index + index % 7)}
        if index % 2
        else {"instruction": "Add the numbers.", "input": f"{index}, {index % 5}", "output": str(index + index % 5)}
        for index in range(start, start + count)
    ]


def write_array(path, rows):
    path.write_text(json.dumps(rows, indent=1))
    return path


def tiny_folder(folder, architecture="gpt2", **changes):
    return save_tiny_model(folder, architecture, **changes)
