"""Processors that check or spell out the arithmetic inside solutions."""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from skills_pipe.training.prepare.jsonl import Row
from skills_pipe.training.prepare.processor import Editor, Filter, text_of

_TOKEN = re.compile(r"(?<!\d)-\d+(?:\.\d+)?|\d+(?:\.\d+)?|\*\*|[+*/()-]")
_NEGATIVE = re.compile(r"(?<!\d)(-\d+(?:\.\d+)?)")
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "**": 3}
_LARGEST_POWER_BITS = 4096
_LONGEST_EXPRESSION = 1000

Number = int | float
_Token = tuple[str, int, int]
"""Text, start and end in the expression."""


class NotArithmetic(ValueError):
    """A text that looked like arithmetic has no value."""


@dataclass(frozen=True, kw_only=True)
class DropIncorrectArithmetic(Filter):
    """Drops solutions in which the first and the last part of some ``a = ... = b`` differ.

    Args:
        solution_key: key of the solution.
        tolerance: relative difference that is let pass.
    """

    solution_key: str = "generation"
    tolerance: float = 1e-4

    def drop_reason(self, row: Row) -> str | None:
        """An equation that does not hold; what cannot be calculated is let pass."""
        for expression, _ in find_expressions(text_of(row, self.solution_key)):
            left, equals, rest = expression.partition("=")
            if not equals:
                continue
            try:
                value = evaluate(solving_steps(left)[-1])
                stated = evaluate(rest.rpartition("=")[2])
                wrong = not math.isclose(value, stated, rel_tol=self.tolerance)
            except (NotArithmetic, OverflowError):
                continue
            if wrong:
                return "incorrect arithmetic"
        return None


@dataclass(frozen=True, kw_only=True)
class SplitArithmetic(Editor):
    """Spells out the steps of ``a = b``: ``1 + 2 + 3 = 6`` becomes ``1 + 2 + 3 = 3 + 3 = 6``."""

    solution_key: str = "generation"

    def edit(self, row: Row) -> bool:
        """Rewrite every equation with two sides whose value is right."""
        text = text_of(row, self.solution_key)
        parts = []
        done = 0
        for expression, start in find_expressions(text):
            end = start + len(expression)
            steps = _steps_of_equation(expression)
            parts.append(text[done:end] if steps is None else text[done:start] + steps)
            done = end
        parts.append(text[done:])
        result = "".join(parts)
        row[self.solution_key] = result
        return result != text


def find_expressions(text: str) -> Iterator[tuple[str, int]]:
    """Stretches of digits, signs, brackets and blanks with two operations or more, and where they start.

    A full stop behind anything but a digit shows what came before it without ending the stretch, whatever its number
    of operations; the data sets made so far depend on it.
    """
    current: list[str] = []
    start = 0
    for position, character in enumerate(text):
        was_empty = not current
        if character.isspace():
            if current:
                current.append(character)
        elif character == ".":
            if current and current[-1].isdigit():
                current.append(character)
            elif current:
                yield "".join(current).rstrip(), start
        elif character.isdigit() or (character in "+-/*=()" and not (character == "=" and not current)):
            current.append(character)
        elif character == "=":
            continue
        else:
            if _operations(current) >= 2:
                yield "".join(current).rstrip(), start
            current = []
        if was_empty and current:
            start = position
    if _operations(current) >= 2:
        yield "".join(current).rstrip(), start


def solving_steps(expression: str) -> list[str]:
    """The expression, then the same with one operation after the other replaced by its value.

    Raises:
        NotArithmetic: the expression is malformed, divides by zero, or grows beyond bounds.
    """
    steps = [expression]
    tokens = _tokens(expression)
    while len(tokens) > 1:
        value, start, end = _first_operation(tokens)
        left, right = expression[:start], expression[end:]
        if left.endswith("(") and right.startswith(")"):
            left, right = left[:-1], right[1:]
        expression = f"{left}{value}{right}"
        if len(steps) > _LONGEST_EXPRESSION:
            raise NotArithmetic(expression)
        steps.append(expression)
        tokens = _tokens(expression)
    return steps


def evaluate(expression: str) -> Number:
    """Value of an expression by Python's rules, with nothing but numbers and operators in it.

    Raises:
        NotArithmetic: it is anything else, or has no value.
    """
    if len(expression) > _LONGEST_EXPRESSION:
        raise NotArithmetic(expression[:80])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(expression.lstrip(" \t"), mode="eval")
        return _value(tree.body)
    except (SyntaxError, ArithmeticError, ValueError, RecursionError, MemoryError) as error:
        raise NotArithmetic(expression) from error


def _steps_of_equation(expression: str) -> str | None:
    """All steps of ``a = b`` in one line, None unless both sides have the same value."""
    sides = expression.split("=")
    if len(sides) != 2:
        return None
    try:
        steps = solving_steps(sides[0])
        if evaluate(steps[-1]) != evaluate(sides[1]):
            return None
    except (NotArithmetic, OverflowError):
        return None
    shown = [_NEGATIVE.sub(r"(\1)", step) for step in steps[:-1]] + [steps[-1].strip()]
    return re.sub(r"\s+", " ", " = ".join(shown))


def _operations(characters: list[str]) -> int:
    return sum(character in "+-/*" for character in characters)


def _tokens(expression: str) -> list[_Token]:
    return [(match.group(), match.start(), match.end()) for match in _TOKEN.finditer(expression)]


def _first_operation(tokens: list[_Token]) -> tuple[Number, int, int]:
    """The operation that is due first, from the left by precedence: its value, and where its operands start and end."""
    numbers: list[tuple[Number, int, int]] = []
    for text, start, end in _postfix(tokens):
        if text[-1].isdigit():
            numbers.append((float(text), start, end))
            continue
        if text not in _OPERATIONS or len(numbers) < 2:
            raise NotArithmetic(text)
        second, first = numbers[-1], numbers[-2]
        return _shortest(_apply(text, first[0], second[0])), first[1], second[2]
    raise NotArithmetic("no operation")


def _postfix(tokens: list[_Token]) -> Iterator[_Token]:
    """Tokens with each operator behind its operands (the shunting-yard algorithm; all operators lean to the left)."""
    waiting: list[_Token] = []
    output: list[_Token] = []
    for token in tokens:
        text = token[0]
        if text[-1].isdigit():
            output.append(token)
        elif text == "(":
            waiting.append(token)
        elif text == ")":
            while waiting and waiting[-1][0] != "(":
                output.append(waiting.pop())
            if not waiting:
                raise NotArithmetic("a bracket is closed that was not opened")
            waiting.pop()
        else:
            while waiting and waiting[-1][0] != "(" and _PRECEDENCE[waiting[-1][0]] >= _PRECEDENCE[text]:
                output.append(waiting.pop())
            waiting.append(token)
    yield from output
    yield from reversed(waiting)


def _shortest(value: Number | complex) -> Number:
    """A whole number without its fraction."""
    if isinstance(value, complex):
        raise NotArithmetic("the root of a negative number")
    if math.isfinite(value) and int(value) == value:
        return int(value)
    return value


def _apply(sign: str, left: Number, right: Number) -> Number:
    if sign == "**" and abs(right) * math.log2(abs(left) + 2) > _LARGEST_POWER_BITS:
        raise NotArithmetic("a power beyond bounds")
    try:
        return _OPERATIONS[sign](left, right)
    except ArithmeticError as error:
        raise NotArithmetic(str(error)) from error


def _value(node: ast.expr) -> Number:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
        value = _apply(_SIGNS[type(node.op)], _value(node.left), _value(node.right))
        if isinstance(value, complex):
            raise NotArithmetic("the root of a negative number")
        return value
    raise NotArithmetic(ast.dump(node))


_OPERATIONS: dict[str, Callable[[Number, Number], Number]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "**": operator.pow,
}
_SIGNS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Pow: "**",
}
