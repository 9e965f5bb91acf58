"""YAML of cluster configurations, with the line of each key."""

from __future__ import annotations

import re
from typing import Any


def parse_yaml(text: str) -> tuple[Any, dict[str, int]]:
    """The value of a YAML text, and the line, counted from 1, of every key: ``timeouts.gpu`` of one in a section.

    ``10:00`` stays text: YAML 1.1 takes it for the number 600, in base 60.

    Raises:
        yaml.YAMLError: it is not valid.
    """
    import yaml

    whole_number = "tag:yaml.org,2002:int"

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012, it is a class attribute in PyYAML too
            first: [resolver for resolver in resolvers if resolver[0] != whole_number]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    Loader.add_implicit_resolver(whole_number, re.compile(r"[-+]?\d+$"), list("-+0123456789"))
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        return (None, {}) if node is None else (loader.construct_document(node), _lines(node))
    finally:
        loader.dispose()


def _lines(node: Any, prefix: str = "") -> dict[str, int]:
    if not isinstance(node.value, list) or node.id != "mapping":
        return {}
    found: dict[str, int] = {}
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        # A key that is written twice has the value of the last one.
        found |= {name: key.start_mark.line + 1} | _lines(value, f"{name}.")
    return found
