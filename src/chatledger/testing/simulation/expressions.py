"""The part of DynamoDB's expressions that plans use. Anything else is refused, never guessed at.

Names must be written ``#name`` and values ``:name``. A text is compiled once, however often it is
used.
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


class Unknown(Exception):
    """An expression that this small parser does not know."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition, and the placeholders that it mentions."""

    holds: Test
    names: frozenset[str]
    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class KeyCondition:
    """``#pk = :pk``, or that and ``#sk BETWEEN :low AND :high``."""

    partition: tuple[str, str]
    between: tuple[str, str, str] | None
    names: frozenset[str]
    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class Update:
    """What is set, as pairs of a name and a value, and the names of what is removed."""

    sets: tuple[tuple[str, str], ...]
    removes: tuple[str, ...]
    names: frozenset[str]
    values: frozenset[str]


@lru_cache(1_000)
def condition(text: str) -> Condition:
    words = _Words(text)
    holds = _either(words)
    words.end()
    return Condition(holds, *words.placeholders())


@lru_cache(1_000)
def key_condition(text: str) -> KeyCondition:
    words = _Words(text)
    name = words.name()
    words.expect("=")
    partition = name, words.value()
    between = None
    if words.take("AND"):
        name = words.name()
        words.expect("BETWEEN")
        low = words.value()
        words.expect("AND")
        between = name, low, words.value()
    words.end()
    return KeyCondition(partition, between, *words.placeholders())


@lru_cache(1_000)
def update(text: str) -> Update:
    words = _Words(text)
    sets: list[tuple[str, str]] = []
    removes: list[str] = []
    if words.take("SET"):
        while True:
            name = words.name()
            words.expect("=")
            sets.append((name, words.value()))
            if not words.take(","):
                break
    if words.take("REMOVE"):
        removes = _names(words)
    words.end()
    return Update(tuple(sets), tuple(removes), *words.placeholders())


@lru_cache(1_000)
def projection(text: str) -> tuple[str, ...]:
    words = _Words(text)
    names = _names(words)
    words.end()
    return tuple(names)


class _Words:
    """The words of an expression, taken one after another."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._words: list[str] = re.findall(r"[#:]?\w+|<>|[=<,()]|\S", text)
        self._place = 0

    def next(self) -> str:
        if self._place == len(self._words):
            raise Unknown(f"{self._text!r} ends too early")
        self._place += 1
        return self._words[self._place - 1]

    def take(self, word: str) -> bool:
        found = self._place < len(self._words) and self._words[self._place] == word
        self._place += found
        return found

    def expect(self, word: str) -> None:
        if (found := self.next()) != word:
            raise Unknown(f"{found!r} in {self._text!r}; known here is {word!r}")

    def name(self) -> str:
        return self._placeholder("#")

    def value(self) -> str:
        return self._placeholder(":")

    def _placeholder(self, mark: str) -> str:
        if not (found := self.next()).startswith(mark) or len(found) == 1:
            raise Unknown(f"{found!r} in {self._text!r}; known here is {mark}...")
        return found

    def end(self) -> None:
        if not self._words or self._place < len(self._words):
            raise Unknown(f"{self._text!r} does not end where it should")

    def placeholders(self) -> tuple[frozenset[str], frozenset[str]]:
        return (
            frozenset(word for word in self._words if word[0] == "#"),
            frozenset(word for word in self._words if word[0] == ":"),
        )


def _names(words: _Words) -> list[str]:
    names = [words.name()]
    while words.take(","):
        names.append(words.name())
    return names


def _either(words: _Words) -> Test:
    test = _both(words)
    while words.take("OR"):
        test = _or(test, _both(words))
    return test


def _both(words: _Words) -> Test:
    test = _one(words)
    while words.take("AND"):
        test = _and(test, _one(words))
    return test


def _one(words: _Words) -> Test:
    if words.take("("):
        test = _either(words)
        words.expect(")")
        return test
    for function, exists in (("attribute_exists", True), ("attribute_not_exists", False)):
        if words.take(function):
            words.expect("(")
            name = words.name()
            words.expect(")")
            return _presence(name, exists)
    name, operator, value = words.name(), words.next(), words.value()
    match operator:
        case "=":
            return lambda item, names, values: item.get(names[name]) == values[value]
        case "<>":
            return lambda item, names, values: item.get(names[name]) != values[value]
        case "<":
            return lambda item, names, values: _below(item.get(names[name]), values[value])
    raise Unknown(f"{operator!r} is not known")


def _or(one: Test, other: Test) -> Test:
    return lambda item, names, values: one(item, names, values) or other(item, names, values)


def _and(one: Test, other: Test) -> Test:
    return lambda item, names, values: one(item, names, values) and other(item, names, values)


def _presence(name: str, exists: bool) -> Test:
    return lambda item, names, values: (names[name] in item) is exists


def _below(attribute: Attribute | None, value: Attribute) -> bool:
    if attribute is None:
        return False
    if "N" in attribute and "N" in value:
        return int(attribute["N"]) < int(value["N"])
    if "S" in attribute and "S" in value:
        return bool(attribute["S"] < value["S"])
    return False
