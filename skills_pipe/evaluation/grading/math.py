"""Whether two mathematical answers are equal, and where in a text the answer stands.

The rules follow NeMo-Skills' math grader (version 0.7.0), verdict for verdict, so that accuracies can be compared:
letters of multiple choice, then the normalised texts, then math-verify.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

_BOXED: Final = "\\boxed"
_CHOICES: Final = tuple("ABCDEFGHIJ")
_DIGITS: Final = re.compile(r"[0-9]+")
_PERCENTAGE: Final = re.compile(r"(\d+\.?\d*)\\?%")
_WORDS_OR_DIGITS: Final = re.compile(r"[a-zA-Z ,]+|[0-9 ]+")
_LATEX_ENVIRONMENT: Final = re.compile(r"\$.*\$|\\\(.*\\\)|\\\[.*\\\]|\\boxed\{", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How to compare; see :class:`skills_pipe.evaluation.settings.Grading`."""

    numeric_precision: int = 15
    timeout: int = 10
    take_modulo: int | None = None


def extract_boxed(text: str) -> str | None:
    """What stands in the last ``\\boxed{}``, braces balanced; None when there is none or it is not closed."""
    start = text.rfind(_BOXED)
    if start < 0 or not text.startswith("{", start + len(_BOXED)):
        return None
    first = start + len(_BOXED) + 1
    depth = 1
    for index in range(first, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[first:index]
    return None


def extract_pattern(text: str, pattern: str) -> str | None:
    """The first group of the first match of ``pattern``; None without a match."""
    match = re.search(pattern, text)
    return match.group(1) if match else None


def quick_verdict(expected: Any, predicted: Any, comparison: Comparison) -> bool | None:
    """The verdict where it is plain without any parsing: no answer, and two rows of digits. None: not plain."""
    if predicted is None:
        return False
    if comparison.take_modulo is not None:
        return _equal_modulo(expected, predicted, comparison.take_modulo)
    left, right = str(expected), str(predicted)
    if _DIGITS.fullmatch(left) and _DIGITS.fullmatch(right):
        return left == right
    return None


def math_equal(expected: Any, predicted: Any, comparison: Comparison) -> bool:
    """Whether ``predicted`` is mathematically equal to ``expected``; the order of the two matters in rare cases.

    Parsing and comparing stop by SIGALRM, so this must run in the main thread of a process
    (see :mod:`skills_pipe.evaluation.grading.pool`).
    """
    verdict = quick_verdict(expected, predicted, comparison)
    if verdict is not None:
        return verdict
    left, right = str(expected), str(predicted)
    if _same_choice(left, right):
        return True
    left, right = _tidy(left), _tidy(right)
    same, literal = _compare_texts(left, right)
    if same or literal:
        return same
    return _verify(left, right, comparison)


def _equal_modulo(expected: Any, predicted: Any, modulus: int) -> bool:
    try:
        return int(expected) % modulus == int(predicted) % modulus
    except (TypeError, ValueError):
        return False


def _same_choice(expected: str, predicted: str) -> bool:
    """Whether the expected letter of a multiple choice is what the prediction names."""
    if expected.strip() not in _CHOICES:
        return False
    from math_verify import StringExtractionConfig, parse, verify

    letters = [StringExtractionConfig(strings=_CHOICES)]
    return bool(verify(parse(expected, letters), parse(predicted, letters)))


def _tidy(text: str) -> str:
    """Without the percent sign of a number, and without the full stop of a sentence."""
    percentage = _PERCENTAGE.fullmatch(text)
    return (percentage.group(1) if percentage else text).rstrip(".\\")


def _compare_texts(expected: str, predicted: str) -> tuple[bool, bool]:
    """Whether the normalised texts are the same, and whether both are plain words or digits: then that decides."""
    from latex2sympy2_extended import NormalizationConfig, normalize_latex

    left = normalize_latex(expected, NormalizationConfig)
    right = normalize_latex(predicted, NormalizationConfig)
    literal = bool(_WORDS_OR_DIGITS.fullmatch(left) and _WORDS_OR_DIGITS.fullmatch(right))
    return left.replace(" ", "") == right.replace(" ", ""), literal


def _verify(expected: str, predicted: str, comparison: Comparison) -> bool:
    from math_verify import LatexExtractionConfig, parse, verify

    latex = [LatexExtractionConfig()]
    left = parse(_in_latex(expected), latex)
    right = parse(_in_latex(predicted), latex)
    return bool(
        verify(
            left,
            right,
            numeric_precision=comparison.numeric_precision,
            timeout_seconds=comparison.timeout,
        )
    )


def _in_latex(text: str) -> str:
    return text if _LATEX_ENVIRONMENT.search(text) else f"${text}$"
