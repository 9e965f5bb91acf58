"""The section ``notify`` of a cluster configuration: who is told when a run has ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from skills_pipe.errors import ClusterConfigError, UserError
from skills_pipe.pipeline.cluster.reader import Reader, expand_braces

KEYS = ("webhook", "on")
_URL = re.compile(r"https?://[^\s\"'\\]+")


class Occasion(str, Enum):
    """When something is told."""

    END = "end"
    """A run ended well."""
    FAILURE = "failure"
    """A run ended, and not all of its stages are finished."""


@dataclass(frozen=True, kw_only=True)
class Notify:
    """Whom to tell.

    Attributes:
        webhook: address to post to, in which ``{NAME}`` stands for an environment variable. Who knows it may post.
        on: the occasions.
    """

    webhook: str = field(repr=False)
    on: tuple[Occasion, ...] = (Occasion.END, Occasion.FAILURE)

    def url(self) -> str:
        """The address, with environment variables put in.

        Raises:
            ClusterConfigError: a variable is not set, or it is no address.
        """
        try:
            url = expand_braces(self.webhook).strip()
        except UserError as error:
            raise ClusterConfigError(error.what, where="notify.webhook", fix=error.fix) from error
        if not _URL.fullmatch(url):
            raise ClusterConfigError("it is no address", where="notify.webhook", fix="begin it with https://")
        return url


def read_notify(reader: Reader) -> Notify | None:
    """The section of a configuration, None without one; what is wrong with it is left with the reader."""
    if not reader.given("notify"):
        return None
    inner = reader.inner("notify")
    inner.unknown(KEYS)
    if isinstance(reader.section("notify").get("webhook"), Mapping):
        inner.problem("webhook", 'is a mapping for YAML: write the variable in quotes, "{NAME}"')
        return None
    webhook = inner.text("webhook")
    if not webhook:
        inner.problem("webhook", "is missing")
        return None
    on = tuple(inner.each("on", _occasion)) if inner.given("on") else tuple(Occasion)
    return Notify(webhook=webhook, on=on)


def _occasion(text: str) -> Occasion:
    try:
        return Occasion(text)
    except ValueError as error:
        raise UserError(f"{text!r} is not one of {', '.join(o.value for o in Occasion)}") from error
