"""Regular expressions from strangers, matched in bounded time. PEFT's rule for module names.

PEFT takes the keys of ``rank_pattern`` and ``alpha_pattern`` for regular expressions and matches
them with ``(.*\\.)?(key)$``; Python's engine needs exponential time for some. Here all the places
where a match can stand are followed at once, as the bits of an integer, and every step is counted.
Understood: characters, ``.``, ``\\d \\w \\s`` and their opposites, escaped punctuation, classes,
groups, ``|``, ``^``, ``$`` and the repetitions ``* + ? {m} {m,} {m,n}`` (greedy or not is the same
here). Refused: back references, look-around, flags.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable

from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_PATTERN_CHARACTERS, MAX_PATTERN_STEPS, MAX_PATTERNS

_LITERAL = re.compile(r"[\w\-.]*")  # '.' is any character, and every match is as long as the key
_REPEAT = re.compile(r"(?:([*+?])|\{(\d{1,3})(?:(,)(\d{1,3})?)?\})\??")
_CLASS = re.compile(r"\[\^?(?:[^\[\]\\]|\\[^\sA-Za-z0-9]|\\[dDwWsS])+\]")
_ESCAPE = re.compile(r"\\(?:[^\sA-Za-z0-9]|[dDwWsS])")
_BOUNDS = {"*": (0, None), "+": (1, None), "?": (0, 1)}


class Patterns:
    """Some keys in their order; ``first`` says which one a name matches.

    InvalidError on keys that are no pattern or too many; the subject is the key.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = tuple(keys)
        if len(self._keys) > MAX_PATTERNS:
            raise InvalidError(f"{len(self._keys)} patterns; {MAX_PATTERNS} allowed")
        self._nodes = {key: _parse(key) for key in self._keys if not _LITERAL.fullmatch(key)}
        self._left = MAX_PATTERN_STEPS

    def first(self, name: str) -> str | None:
        """The first key with ``re.match(rf"(.*\\.)?({key})$", name)``, as PEFT finds it."""
        text = _Text(name)
        for key in self._keys:
            node = self._nodes.get(key)
            found = _literal(key, name) if node is None else text.matches(node)
            self._left -= text.take_steps()
            if self._left < 0:
                raise InvalidError("too slow to match", subject=key[:200])
            if found:
                return key
        return None


def _literal(key: str, name: str) -> bool:
    """A key of characters and '.' only: at the start of *name* or after a dot, up to its end."""
    start = len(name) - len(key)
    if start < 0 or (start and name[start - 1] != "."):
        return False
    tail = name[start:]
    return tail == key or all(k in (".", t) for k, t in zip(key, tail, strict=True))


class _Text:
    """A name under examination. Sets of positions 0 … len(name) are the bits of integers."""

    def __init__(self, name: str) -> None:
        self.name, self._steps = name, 1
        self._places: dict[str, int] = {}

    def matches(self, node: _Node) -> bool:
        starts = 1 | sum(2 << i for i, char in enumerate(self.name) if char == ".")
        return bool(node(self, starts) >> len(self.name) & 1)

    def places(self, symbol: str) -> int:
        """Where a character stands that the one-character expression *symbol* matches."""
        self._steps += 1
        if self._steps > MAX_PATTERN_STEPS:
            raise InvalidError("too slow to match")
        found = self._places.get(symbol)
        if found is None:
            single = re.compile(symbol)
            found = sum(1 << i for i, char in enumerate(self.name) if single.match(char))
            self._places[symbol] = found
        return found

    def take_steps(self) -> int:
        taken, self._steps = self._steps, 1
        return taken


_Node = Callable[[_Text, int], int]  # positions before → positions after


def _symbol(symbol: str) -> _Node:
    return lambda text, at: (at & text.places(symbol)) << 1


def _start(text: _Text, at: int) -> int:
    return at & 1


def _end(text: _Text, at: int) -> int:
    return at & (1 << len(text.name))


def _sequence(nodes: list[_Node]) -> _Node:
    def run(text: _Text, at: int) -> int:
        for node in nodes:
            at = node(text, at)
        return at

    return run


def _either(nodes: list[_Node]) -> _Node:
    def run(text: _Text, at: int) -> int:
        found = 0
        for node in nodes:
            found |= node(text, at)
        return found

    return run


def _repeat(node: _Node, least: int, most: int | None) -> _Node:
    def run(text: _Text, at: int) -> int:
        for _ in range(least):
            at = node(text, at)
        found = fresh = at
        count = least
        while fresh and (most is None or count < most):
            fresh = node(text, fresh) & ~found  # a place reached twice leads to the same places
            found |= fresh
            count += 1
        return found

    return run


def _parse(key: str) -> _Node:
    if len(key) > MAX_PATTERN_CHARACTERS:
        raise InvalidError(
            f"a pattern of {len(key)} characters; {MAX_PATTERN_CHARACTERS} allowed",
            subject=key[:200],
        )
    return _Parser(key).parse()


class _Parser:
    """Recursive descent; a group costs a level, and levels are few."""

    def __init__(self, key: str) -> None:
        self._key, self._at, self._depth = key, 0, 0

    def parse(self) -> _Node:
        node = self._alternatives()
        if self._at < len(self._key):
            raise self._refused()
        return node

    def _refused(self) -> InvalidError:
        return InvalidError(
            f"no pattern that is understood here, at character {self._at}", subject=self._key[:200]
        )

    def _peek(self) -> str:
        return self._key[self._at : self._at + 1]

    def _alternatives(self) -> _Node:
        found = [self._branch()]
        while self._peek() == "|":
            self._at += 1
            found.append(self._branch())
        return found[0] if len(found) == 1 else _either(found)

    def _branch(self) -> _Node:
        nodes: list[_Node] = []
        while (char := self._peek()) and char not in "|)":
            if char in "^$":
                self._at += 1
                nodes.append(_start if char == "^" else _end)
            else:
                nodes.append(self._repeated(self._group() if char == "(" else self._character()))
        return _sequence(nodes)

    def _repeated(self, node: _Node) -> _Node:
        found = _REPEAT.match(self._key, self._at)
        if found is None:
            return node
        self._at = found.end()
        if self._peek() in ("*", "+", "?", "{"):  # possessive, or of a repetition
            raise self._refused()
        sign, least, comma, most = found.groups()
        if sign:
            return _repeat(node, *_BOUNDS[sign])
        if comma and most is None:
            return _repeat(node, int(least), None)
        if int(most or least) < int(least):
            raise self._refused()
        return _repeat(node, int(least), int(most or least))

    def _group(self) -> _Node:
        self._at += 3 if self._key.startswith("(?:", self._at) else 1
        self._depth += 1
        if self._depth > 16 or self._peek() == "?":
            raise self._refused()
        node = self._alternatives()
        if self._peek() != ")":
            raise self._refused()
        self._at += 1
        self._depth -= 1
        return node

    def _character(self) -> _Node:
        char = self._peek()
        if char in "*+?{}]":
            raise self._refused()
        if char in "[\\":
            found = (_CLASS if char == "[" else _ESCAPE).match(self._key, self._at)
            if found is None or not _compiles(found.group()):
                raise self._refused()
            self._at = found.end()
            return _symbol(found.group())
        self._at += 1
        return _symbol(char)


def _compiles(symbol: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what may change its meaning in a later Python
        try:
            re.compile(symbol)
        except (re.error, Warning):
            return False
    return True
