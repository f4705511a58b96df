"""A bounded, plain subset of YAML: mappings, lists and text. Nothing is constructed from a tag.

Scalars stay the text that was written (``0.8``, ``true``), so a number in a file means what it
means on the command line; ``null`` and nothing at all are None. No anchors, aliases, tags or double
keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paramdelta.errors import InvalidError, UsageError
from paramdelta.folder import read_bounded
from paramdelta.limits import MAX_RECIPE_BYTES, MAX_RECIPE_DEPTH

_NULL = "tag:yaml.org,2002:null"


def read_yaml(path: Path) -> Any:
    """NotFoundError, UsageError for a folder, InvalidError naming line and reason."""
    if path.is_dir():
        raise UsageError("a folder, not a recipe", where=path)
    # where the user's own link leads: only what strangers put into a folder must stay in it
    real = path.resolve()
    return parse_yaml(read_bounded(real.parent, real.name, MAX_RECIPE_BYTES), path)


def parse_yaml(data: bytes, where: object) -> Any:
    import yaml  # by the only command that reads one

    try:
        text = data.decode()
        _check_events(yaml, text, where)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if node is None else _value(yaml, node, where)
    except UnicodeDecodeError as error:
        raise InvalidError("not UTF-8", where=where) from error
    except yaml.YAMLError as error:
        raise InvalidError(f"not YAML: {' '.join(str(error).split())[:300]}", where=where) from None


def _check_events(yaml: Any, text: str, where: object) -> None:
    """Before anything is built: depth, and what could stand for more than it says."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise InvalidError(
                "anchors and aliases are not taken", where=where, subject=f"line {line}"
            )
        if getattr(event, "tag", None):
            raise InvalidError("tags are not taken", where=where, subject=f"line {line}")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_RECIPE_DEPTH:
            raise InvalidError(
                f"deeper than {MAX_RECIPE_DEPTH}", where=where, subject=f"line {line}"
            )


def _value(yaml: Any, node: Any, where: object) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(yaml, item, where) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            line = f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise InvalidError("a key must be text", where=where, subject=line)
            if key.value in found:
                raise InvalidError(f"two keys {key.value[:100]!r}", where=where, subject=line)
            found[key.value] = _value(yaml, value, where)
        return found
    return None if node.tag == _NULL else node.value
