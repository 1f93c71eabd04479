"""A parser for the part of DynamoDB's expressions that plans use.

It raises ``Unsupported`` for everything else, and never guesses. Names must be written ``#name``
and values ``:name``. Each text is compiled once, however often it is used.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from chatledger.stores.dynamodb.calls import Attribute, Item

Names: TypeAlias = Mapping[str, str]
Values: TypeAlias = Mapping[str, Attribute]
Test: TypeAlias = Callable[[Item, Names, Values], bool]


class Unsupported(Exception):
    """The simulated table does not support this; it refuses instead of guessing."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition, and the placeholders in it."""

    matches: Test
    names: frozenset[str]
    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class KeyCondition:
    """``#pk = :pk``, optionally with ``AND #sk BETWEEN :low AND :high``."""

    partition: tuple[str, str]
    between: tuple[str, str, str] | None
    names: frozenset[str]
    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class Update:
    """The names and values that an update sets, and the names that it removes."""

    sets: tuple[tuple[str, str], ...]
    removes: tuple[str, ...]
    names: frozenset[str]
    values: frozenset[str]


@lru_cache(1_000)
def parse_condition(text: str) -> Condition:
    tokens = _Tokens(text)
    matches = _parse_or(tokens)
    tokens.expect_end()
    return Condition(matches, *tokens.placeholders())


@lru_cache(1_000)
def parse_key_condition(text: str) -> KeyCondition:
    tokens = _Tokens(text)
    name = tokens.next_name()
    tokens.expect("=")
    partition = name, tokens.next_value()
    between = None
    if tokens.skip("AND"):
        name = tokens.next_name()
        tokens.expect("BETWEEN")
        low = tokens.next_value()
        tokens.expect("AND")
        between = name, low, tokens.next_value()
    tokens.expect_end()
    return KeyCondition(partition, between, *tokens.placeholders())


@lru_cache(1_000)
def parse_update(text: str) -> Update:
    tokens = _Tokens(text)
    sets: list[tuple[str, str]] = []
    removes: list[str] = []
    if tokens.skip("SET"):
        while True:
            name = tokens.next_name()
            tokens.expect("=")
            sets.append((name, tokens.next_value()))
            if not tokens.skip(","):
                break
    if tokens.skip("REMOVE"):
        removes = _parse_names(tokens)
    tokens.expect_end()
    return Update(tuple(sets), tuple(removes), *tokens.placeholders())


@lru_cache(1_000)
def parse_projection(text: str) -> tuple[str, ...]:
    tokens = _Tokens(text)
    names = _parse_names(tokens)
    tokens.expect_end()
    return tuple(names)


class _Tokens:
    """The tokens of an expression, read from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = re.findall(r"[#:]?\w+|<>|[=<>,()]|\S", text)
        self._index = 0

    def next(self) -> str:
        if self._index == len(self._tokens):
            raise Unsupported(f"{self._text!r} ends too early")
        self._index += 1
        return self._tokens[self._index - 1]

    def skip(self, token: str) -> bool:
        """Return whether that token comes next, and move past it if so."""
        found = self._index < len(self._tokens) and self._tokens[self._index] == token
        self._index += found
        return found

    def expect(self, token: str) -> None:
        if (found := self.next()) != token:
            raise Unsupported(f"{found!r} in {self._text!r}; only {token!r} is supported there")

    def next_name(self) -> str:
        return self._next_placeholder("#")

    def next_value(self) -> str:
        return self._next_placeholder(":")

    def _next_placeholder(self, prefix: str) -> str:
        if not (found := self.next()).startswith(prefix) or len(found) == 1:
            raise Unsupported(f"{found!r} in {self._text!r}; only {prefix}... is supported there")
        return found

    def expect_end(self) -> None:
        if not self._tokens or self._index < len(self._tokens):
            raise Unsupported(f"{self._text!r} is empty, or does not end where it should")

    def placeholders(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the placeholders of names and of values."""
        return (
            frozenset(token for token in self._tokens if token[0] == "#"),
            frozenset(token for token in self._tokens if token[0] == ":"),
        )


def _parse_names(tokens: _Tokens) -> list[str]:
    names = [tokens.next_name()]
    while tokens.skip(","):
        names.append(tokens.next_name())
    return names


def _parse_or(tokens: _Tokens) -> Test:
    test = _parse_and(tokens)
    while tokens.skip("OR"):
        test = _or(test, _parse_and(tokens))
    return test


def _parse_and(tokens: _Tokens) -> Test:
    test = _parse_operand(tokens)
    while tokens.skip("AND"):
        test = _and(test, _parse_operand(tokens))
    return test


def _parse_operand(tokens: _Tokens) -> Test:
    if tokens.skip("("):
        test = _parse_or(tokens)
        tokens.expect(")")
        return test
    for function, exists in (("attribute_exists", True), ("attribute_not_exists", False)):
        if tokens.skip(function):
            tokens.expect("(")
            name = tokens.next_name()
            tokens.expect(")")
            return _existence(name, exists)
    name, operator, value = tokens.next_name(), tokens.next(), tokens.next_value()
    match operator:
        case "=":
            return lambda item, names, values: item.get(names[name]) == values[value]
        case "<>":
            return lambda item, names, values: item.get(names[name]) != values[value]
        case "<":
            return lambda item, names, values: _is_less(item.get(names[name]), values[value])
        case ">":
            return lambda item, names, values: _is_less(values[value], item.get(names[name]))
    raise Unsupported(f"the operator {operator!r}")


def _or(one: Test, other: Test) -> Test:
    return lambda item, names, values: one(item, names, values) or other(item, names, values)


def _and(one: Test, other: Test) -> Test:
    return lambda item, names, values: one(item, names, values) and other(item, names, values)


def _existence(name: str, exists: bool) -> Test:
    return lambda item, names, values: (names[name] in item) is exists


def _is_less(one: Attribute | None, other: Attribute | None) -> bool:
    if one is None or other is None:
        return False
    if "N" in one and "N" in other:
        return int(one["N"]) < int(other["N"])
    if "S" in one and "S" in other:
        return bool(one["S"] < other["S"])
    return False
