"""Jinja as transformers sets it up, for templates that are run on :class:`symbol.Symbol` in place of contents.

Templates are not changed: what is compiled is the same source. What differs is what a value may meet. A content may be
joined, asked and cut by the ways that ``Symbol`` knows; a filter, test or function that is not listed here gets none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from types import BuiltinMethodType
from typing import Any, Final

import jinja2
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import CallBlock, Concat, Expr, Node
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from skills_pipe.training.data.tracing.symbol import Run, Symbol, Untraceable, derived


class Generation(Extension):
    """``{% generation %}``: notes what is written in it, and how many writes of the template came before."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> Node:
        """The block, as a call of :meth:`written` with its body."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return CallBlock(self.call_method("written"), [], [], body).set_lineno(line)

    def written(self, caller: Macro) -> Any:
        """What the block writes."""
        text = caller()
        environment: Any = self.environment
        environment.marks.append((len(environment.writes), text))
        return text


class _Generator(CodeGenerator):
    """Writes values out through the environment, where Jinja calls ``str``."""

    def _output_child_pre(self, node: Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> None:
        if frame.eval_ctx.volatile or frame.eval_ctx.autoescape or finalize.src is not None:
            raise Untraceable("the template escapes what it writes")
        self.write("environment.shown(")

    def visit_Concat(self, node: Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class TracingEnvironment(ImmutableSandboxedEnvironment):
    """The environment of one template; it runs one row at a time.

    Args:
        original: that transformers renders the template with.

    Raises:
        Untraceable: transformers has set it up in a way that is not known here.

    Attributes:
        writes: what the template has written so far.
        marks: for each ``{% generation %}`` the number of writes before it, and what it wrote.
    """

    code_generator_class = _Generator

    def __init__(self, original: jinja2.Environment) -> None:
        extensions = {key.rpartition(".")[2] for key in original.extensions}
        if extensions != {"AssistantTracker", "LoopControlExtension"} or original.finalize or original.autoescape:
            raise Untraceable("transformers renders templates in a way that is not known")
        super().__init__(
            trim_blocks=original.trim_blocks,
            lstrip_blocks=original.lstrip_blocks,
            keep_trailing_newline=original.keep_trailing_newline,
            undefined=original.undefined,
            extensions=[Generation, loopcontrols],
        )
        self.globals = dict(original.globals)
        self.filters = {name: self._filter(name, call) for name, call in original.filters.items()}
        tests: Mapping[str, Any] = original.tests
        self.tests = {name: self._test(name, call) for name, call in tests.items()}
        self.run = Run(contents=())
        self.writes: list[str | Symbol] = []
        self.marks: list[tuple[int, str | Symbol]] = []

    def start(self, run: Run) -> None:
        """Make ready for a row."""
        self.run, self.writes, self.marks = run, [], []

    def shown(self, value: Any) -> Any:
        """A value as it is written out."""
        if isinstance(value, Symbol):
            return value
        if _may_hold_content(value):
            self.run.refuse(f"{type(value).__name__} is written out")
        return str(value)

    def joined(self, values: Iterable[Any]) -> Any:
        """The texts of values, one after the other."""
        return self.concat([self.shown(value) for value in values])

    def concat(self, parts: Iterable[Any]) -> Any:
        """Texts and contents, one after the other."""
        written = list(parts)
        if not any(isinstance(part, Symbol) for part in written):
            return "".join(written)
        return sum(written, Symbol(self.run, ()))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """``obj[argument]`` in a template."""
        if isinstance(argument, Symbol):
            self.run.refuse("a content is a key")
        return super().getitem(obj, argument)

    def call(__self, __context: Context, __callee: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls."""
        given = [value for name, value in kwargs.items() if name not in ("_loop_vars", "_block_vars")]
        now: Any = __self.globals.get("strftime_now")
        if __callee is now:
            # A question like any other: tomorrow the answer is another one.
            return __self.run.answer(("now", args), lambda _: now(*args))
        if __callee is __self.globals.get("lipsum"):
            __self.run.refuse("random text")
        if any(map(_may_hold_content, (*args, *given))) and not __self._takes_contents(__callee):
            __self.run.refuse(f"a call of {getattr(__callee, '__name__', type(__callee).__name__)} with a content")
        return super().call(__context, __callee, *args, **kwargs)

    def _takes_contents(self, callee: Any) -> bool:
        """Whether a function does nothing with its arguments but keep them, or what the template itself says."""
        if isinstance(callee, Macro) or callee in (self.globals.get("namespace"), self.globals.get("dict")):
            return True
        if isinstance(getattr(callee, "__self__", None), Symbol):
            return True
        # Of a dictionary or list: a default value, or what is looked for by comparing.
        return isinstance(callee, BuiltinMethodType) and isinstance(callee.__self__, (dict, list, tuple))

    def _filter(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that gets contents only where it is known what it does with them."""
        skipped = int(hasattr(original, "jinja_pass_arg"))

        @wraps(original)
        def filtered(*args: Any, **kwargs: Any) -> Any:
            value, *others = args[skipped:]
            if name in _RANDOM:
                self.run.refuse(f"the filter {name}")
            if isinstance(value, Symbol) and not any(map(_may_hold_content, (*others, *kwargs.values()))):
                if name in _TEXT_FILTERS and not others and not kwargs:
                    return value if name == "string" else derived(value, f"|{name}", original)
                if name == "tojson":
                    return derived(
                        value, "|tojson", lambda text: original(text, *others, **kwargs), _key(others, kwargs)
                    )
                if name == "trim" and not kwargs:
                    return value.strip(*others)
            elif name in _CONTAINER_FILTERS and not isinstance(value, Symbol):
                return original(*args, **kwargs)
            if name not in _DEFAULTS and any(map(_may_hold_content, (value, *others, *kwargs.values()))):
                self.run.refuse(f"the filter {name} on a content")
            return original(*args, **kwargs)

        return filtered

    def _test(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        """A test that gives for contents what it gives for text."""
        skipped = int(hasattr(original, "jinja_pass_arg"))

        @wraps(original)
        def tested(*args: Any, **kwargs: Any) -> Any:
            value, *others = args[skipped:]
            if isinstance(value, Symbol) and name in _TRUE_OF_TEXT:
                return True
            if name not in _SAFE_TESTS and any(map(_may_hold_content, (value, *others, *kwargs.values()))):
                self.run.refuse(f"the test {name} on a content")
            return original(*args, **kwargs)

        return tested


def _may_hold_content(value: Any) -> bool:
    """Whether there may be a content in a value; of kinds that are not known, there may."""
    if value is None or isinstance(value, (str, int, float, Undefined, range, Macro)):
        return False
    if isinstance(value, (list, tuple)):
        return any(map(_may_hold_content, value))
    if isinstance(value, Mapping):
        return any(map(_may_hold_content, (*value.keys(), *value.values())))
    return True


def _key(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    return (*map(repr, args), *(f"{name}={value!r}" for name, value in sorted(kwargs.items())))


_RANDOM: Final = frozenset(("random",))
_DEFAULTS: Final = frozenset(("default", "d"))
"""Filters that give back what they get, after asking whether it is there."""

_TEXT_FILTERS: Final = frozenset(("string", "upper", "lower", "capitalize", "title"))
_CONTAINER_FILTERS: Final = frozenset(
    ("length", "count", "first", "last", "list", "map", "select", "reject", "selectattr", "rejectattr")
)
"""Filters that take lists apart without looking at what is in them, but by filters and tests that are wrapped too."""

_TRUE_OF_TEXT: Final = frozenset(("string", "defined", "iterable", "sequence"))
_SAFE_TESTS: Final = frozenset(
    (
        *("string", "defined", "undefined", "none", "mapping", "iterable", "sequence", "number", "integer", "float"),
        *("boolean", "true", "false", "eq", "==", "equalto", "ne", "!=", "in"),
    )
)
"""Tests that are right for any value: by its kind, which is not that of anything else, or by comparing."""
