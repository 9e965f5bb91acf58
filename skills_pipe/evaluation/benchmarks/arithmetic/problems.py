"""Word problems on adding and subtracting numbers up to 99, with worked solutions and with wrong ones.

The test split holds pairs of operands that the training split never shows: a model that knows the answers to all
training problems by heart, but cannot add, scores nothing on it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

Split = Literal["train", "test"]
T = TypeVar("T")

SPLITS: Final[tuple[Split, ...]] = ("train", "test")
SMALLEST, LARGEST = 2, 99
_TEST_SHARE: Final = 10
"""One pair of operands in so many belongs to the test split."""

_NAMES: Final = ("Ava", "Ben", "Cleo", "Dan", "Ella", "Finn", "Gia", "Hugo", "Iris", "Jon", "Kira", "Leo")
_FRUITS: Final = ("apples", "pears", "plums", "lemons", "oranges", "peaches")
_GOODS: Final = ("books", "lamps", "cups", "balls", "kites", "pens")

_ADDITIONS: Final = (
    "{name} has {a} {fruit} and buys {b} more. How many {fruit} does {name} have now?",
    "A shop sells {a} {good} on Monday and {b} {good} on Tuesday. How many {good} does it sell in all?",
    "{name} reads {a} pages in the morning and {b} pages at night. How many pages does {name} read that day?",
    "{name} walks {a} steps to the door and {b} steps to the gate. How many steps is that?",
    "There are {a} {fruit} in one box and {b} in another. How many {fruit} are in both boxes?",
    "A bus carries {a} people and {b} more get on. How many people are on the bus?",
    "{name} saves {a} dollars in May and {b} dollars in June. How many dollars does {name} save?",
    "A farm has {a} hens and {b} ducks. How many birds does the farm have?",
)
_SUBTRACTIONS: Final = (
    "{name} has {a} {fruit} and eats {b} of them. How many {fruit} are left?",
    "A shop has {a} {good} and sells {b}. How many {good} remain?",
    "A book has {a} pages and {name} has read {b}. How many pages are left to read?",
    "{name} is {a} steps from home and walks {b} of them. How many steps remain?",
    "There are {a} {fruit} in a box and {name} takes {b} out. How many {fruit} stay in the box?",
    "A bus carries {a} people and {b} get off. How many people are still on the bus?",
    "{name} has {a} dollars and spends {b} on {good}. How many dollars does {name} still have?",
    "A farm has {a} hens and {b} run away. How many hens remain?",
)


def generate(split: Split, count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield ``count`` different problems of a split; the same arguments give the same problems on every machine.

    Each row holds ``problem``, ``expected_answer`` (a string), ``operation`` (``+`` or ``-``), ``a`` and ``b``.
    """
    draw = random.Random(f"{split}/{seed}")
    seen: set[str] = set()
    while len(seen) < count:
        operation = _choose(draw, "+-")
        a, b = _number(draw, SMALLEST), _number(draw, SMALLEST)
        if operation == "-" and a < b:
            a, b = b, a
        if split_of(a, operation, b) != split:
            continue
        template = _choose(draw, _ADDITIONS if operation == "+" else _SUBTRACTIONS)
        words = {"name": _choose(draw, _NAMES), "fruit": _choose(draw, _FRUITS), "good": _choose(draw, _GOODS)}
        problem = template.format(a=a, b=b, **words)
        if problem in seen:
            continue
        seen.add(problem)
        answer = a + b if operation == "+" else a - b
        yield {"problem": problem, "expected_answer": str(answer), "operation": operation, "a": a, "b": b}


def split_of(a: int, operation: str, b: int) -> Split:
    """The split to which a pair of operands belongs; 12 + 35 and 35 + 12 belong to the same one."""
    if operation == "+":
        a, b = min(a, b), max(a, b)
    first_byte = hashlib.sha256(f"{a}{operation}{b}".encode()).digest()[0]
    return "test" if first_byte % _TEST_SHARE == 0 else "train"


def solution(row: Mapping[str, Any]) -> str:
    """A worked solution, digit by digit as on paper, that ends with the answer in ``\\boxed{}``."""
    return _worked(row, int(row["expected_answer"]))


def wrong_solution(row: Mapping[str, Any], *, seed: int = 0) -> str:
    """A solution with a slip of a child: one too many or too few, or a forgotten carry; never the right answer."""
    draw = random.Random(f"{row['problem']}/{seed}")
    right = int(row["expected_answer"])
    slips = [right + slip for slip in (1, -1, 10, -10) if right + slip >= 0]
    return _worked(row, _choose(draw, slips))


def training_generations(count: int, *, seed: int = 0, wrong_share: float = 0.1) -> Iterator[dict[str, Any]]:
    """Yield what a model would have answered to ``count`` training problems, graded: a share of it is wrong.

    Rows are as an evaluation writes them: ``problem``, ``expected_answer``, ``generation``, ``predicted_answer``,
    ``symbolic_correct``.
    """
    draw = random.Random(f"generations/{seed}")
    for row in generate("train", count, seed):
        wrong = draw.random() < wrong_share
        text = wrong_solution(row, seed=seed) if wrong else solution(row)
        yield {
            "problem": row["problem"],
            "expected_answer": row["expected_answer"],
            "generation": text,
            "predicted_answer": text.rpartition("{")[2].rstrip("}."),
            "symbolic_correct": not wrong,
        }


def _worked(row: Mapping[str, Any], answer: int) -> str:
    a, operation, b = row["a"], row["operation"], row["b"]
    steps = _addition_steps(a, b) if operation == "+" else _subtraction_steps(a, b)
    return f"{steps} So {a} {operation} {b} = {answer}. The answer is \\boxed{{{answer}}}."


def _addition_steps(a: int, b: int) -> str:
    ones = a % 10 + b % 10
    carry = " + 1" if ones > 9 else ""
    tens = a // 10 + b // 10 + ones // 10
    return f"Ones: {a % 10} + {b % 10} = {ones}. Tens: {a // 10} + {b // 10}{carry} = {tens}."


def _subtraction_steps(a: int, b: int) -> str:
    borrow = a % 10 < b % 10
    ones = a % 10 + 10 * borrow
    tens = a // 10 - b // 10 - borrow
    taken = " - 1" if borrow else ""
    return f"Ones: {ones} - {b % 10} = {ones - b % 10}. Tens: {a // 10} - {b // 10}{taken} = {tens}."


def _number(draw: random.Random, smallest: int) -> int:
    return smallest + int(draw.random() * (LARGEST + 1 - smallest))


def _choose(draw: random.Random, choices: Sequence[T]) -> T:
    """Built on ``random()`` alone, whose sequence Python keeps the same between its versions."""
    return choices[int(draw.random() * len(choices))]
