"""Texts that must not change by accident."""

from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def check_golden(name: str, text: str) -> None:
    """Compare ``text`` with the golden file of this name.

    To accept a change: delete the file, run the test (it writes the new one, and fails), and look at the difference.
    """
    path = FOLDER / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        raise AssertionError(f"{path} was not there and has been written: look at it, and add it")
    assert text == path.read_text(), f"differs from {path}; if that is meant, delete it and run this again"
