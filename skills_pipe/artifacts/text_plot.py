"""A line plot in braille characters, two by four dots in each, for terminals and log files."""

from __future__ import annotations

from collections.abc import Sequence

_BRAILLE = 0x2800
# Bit of the dot at (column, row) inside one character: Unicode 15, section 21.1, Braille Patterns.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_LABEL = 10


def line_plot(
    line: Sequence[tuple[float, float]],
    *,
    points: Sequence[tuple[float, float]] = (),
    width: int = 80,
    height: int = 14,
) -> str:
    """Draw a line through (x, y) pairs, ascending in x, and ``points`` as ``x`` marks above it.

    Args:
        line: at least one pair.
        points: further pairs, marked one by one.
        width: columns of the whole picture, the labels of the y axis included.
        height: rows of the plotting area; below it come the axis and its labels.
    """
    columns = max(8, width - _LABEL - 1)
    frame = _Frame([*line, *points], columns=columns, rows=height)
    cells = [[_BRAILLE] * columns for _ in range(height)]
    dots = [frame.dot(x, y) for x, y in line]
    for start, end in zip(dots, dots[1:] or dots, strict=False):
        for column, row in _between(start, end):
            cells[row // 4][column // 2] |= _DOTS[column % 2][row % 4]
    text = [[chr(cell) if cell != _BRAILLE else " " for cell in cells_of_row] for cells_of_row in cells]
    for x, y in points:
        column, row = frame.dot(x, y)
        text[row // 4][column // 2] = "x"
    labels = frame.labels()
    lines = [f"{labels.get(row, ''):>{_LABEL}}┤{''.join(text[row])}".rstrip() for row in range(height)]
    lines.append(" " * _LABEL + "└" + "─" * columns)
    first, last = f"{frame.left:g}", f"{frame.right:g}" if frame.left < frame.right else ""
    lines.append((" " * (_LABEL + 1) + first + last.rjust(columns - len(first))).rstrip())
    return "\n".join(lines)


class _Frame:
    """Maps values to dots; dot (0, 0) is the upper left one."""

    def __init__(self, pairs: Sequence[tuple[float, float]], *, columns: int, rows: int) -> None:
        self.left, self.right = min(x for x, _ in pairs), max(x for x, _ in pairs)
        self.bottom, self.top = min(y for _, y in pairs), max(y for _, y in pairs)
        self._columns, self._rows = columns, rows

    def dot(self, x: float, y: float) -> tuple[int, int]:
        across = (x - self.left) / ((self.right - self.left) or 1.0)
        down = (self.top - y) / ((self.top - self.bottom) or 1.0)
        return round(across * (self._columns * 2 - 1)), round(down * (self._rows * 4 - 1))

    def labels(self) -> dict[int, str]:
        """Values of the first, the middle and the last row."""
        if self.bottom == self.top:
            return {0: f"{self.top:.4g}"}
        row = self._rows // 2
        middle = self.top - (row * 4 + 1.5) / (self._rows * 4 - 1) * (self.top - self.bottom)
        return {row: f"{middle:.4g}", self._rows - 1: f"{self.bottom:.4g}", 0: f"{self.top:.4g}"}


def _between(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Dots of a straight line, both ends included."""
    count = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    return [
        (round(start[0] + (end[0] - start[0]) * part / count), round(start[1] + (end[1] - start[1]) * part / count))
        for part in range(count + 1)
    ]
