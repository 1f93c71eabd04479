"""A parser for DynamoDB's conditions and updates, as far as the drop-in and the old class use them.

In addition to what the store uses, they contain paths into lists and maps, and functions of lists
and sets. It raises ``Unsupported`` for everything else.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from chatledger.stores.dynamodb.calls import Attribute, CallFailed, Item
from tests.simulation.expressions import Unsupported

Names: TypeAlias = Mapping[str, str]
Values: TypeAlias = Mapping[str, Attribute]
Test: TypeAlias = Callable[[Item, Names, Values], bool]
Operand: TypeAlias = Callable[[Item, Names, Values], Attribute | None]
Change: TypeAlias = Callable[[Item, Item, Names, Values], None]
"""Changes its second argument; the first is the item before the update."""

_TOKEN = re.compile(r"[#:]\w+(?:\[\d+\]|\.#\w+)*|<=|>=|<>|[=<>(),]|\w+|\S")
_PLACEHOLDER = re.compile(r"[#:]\w+")
_STEP = re.compile(r"\[(\d+)\]|\.(#\w+)")


@dataclass(frozen=True, slots=True)
class ParsedCondition:
    matches: Test
    placeholders: frozenset[str]


@dataclass(frozen=True, slots=True)
class ParsedUpdate:
    changes: tuple[Change, ...]
    placeholders: frozenset[str]


@lru_cache(1_000)
def parse_condition(text: str) -> ParsedCondition:
    parser = _Parser(text)
    matches = parser.disjunction()
    parser.expect_end()
    return ParsedCondition(matches, frozenset(_PLACEHOLDER.findall(text)))


@lru_cache(1_000)
def parse_update(text: str) -> ParsedUpdate:
    parser = _Parser(text)
    changes: list[Change] = []
    for keyword, parse in (
        ("SET", parser.setting),
        ("ADD", parser.addition),
        ("REMOVE", parser.removal),
    ):
        if parser.skip(keyword):
            changes.append(parse())
            while parser.skip(","):
                changes.append(parse())
    parser.expect_end()
    return ParsedUpdate(tuple(changes), frozenset(_PLACEHOLDER.findall(text)))


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = _TOKEN.findall(text)
        self._index = 0

    def _next(self) -> str:
        if self._index == len(self._tokens):
            raise Unsupported(f"{self._text!r} ends too early")
        self._index += 1
        return self._tokens[self._index - 1]

    def skip(self, token: str) -> bool:
        found = self._index < len(self._tokens) and self._tokens[self._index] == token
        self._index += found
        return found

    def _expect(self, token: str) -> None:
        if not self.skip(token):
            raise Unsupported(f"{self._text!r} at {self._tokens[self._index :]}; expected {token}")

    def expect_end(self) -> None:
        if not self._tokens or self._index < len(self._tokens):
            raise Unsupported(f"{self._text!r} at {self._tokens[self._index :]}")

    # Conditions ----------------------------------------------------------------------------------

    def disjunction(self) -> Test:
        tests = [self._conjunction()]
        while self.skip("OR"):
            tests.append(self._conjunction())
        return lambda *given: any(test(*given) for test in tests)

    def _conjunction(self) -> Test:
        tests = [self._negation()]
        while self.skip("AND"):
            tests.append(self._negation())
        return lambda *given: all(test(*given) for test in tests)

    def _negation(self) -> Test:
        if self.skip("NOT"):
            test = self._negation()
            return lambda *given: not test(*given)
        if self.skip("("):
            test = self.disjunction()
            self._expect(")")
            return test
        for name, function in _FUNCTIONS.items():
            if self.skip(name):
                return self._call(function)
        left, operator, right = self._operand(), self._next(), self._operand()
        compare = _COMPARISONS.get(operator)
        if compare is None:
            raise Unsupported(f"the operator {operator} in {self._text!r}")
        return lambda *given: compare(left(*given), right(*given))

    def _call(self, function: Callable[..., bool]) -> Test:
        self._expect("(")
        arguments = [self._operand()]
        while self.skip(","):
            arguments.append(self._operand())
        self._expect(")")
        return lambda *given: function(*(argument(*given) for argument in arguments))

    def _operand(self) -> Operand:
        token = self._next()
        if token[0] == ":":
            return lambda item, names, values: values[token]
        if token[0] != "#":
            raise Unsupported(f"{token!r} in {self._text!r}")
        first = _PLACEHOLDER.match(token)
        assert first is not None
        steps = _STEP.findall(token)
        return lambda item, names, values: _follow(item.get(names[first[0]]), steps, names)

    # Updates -------------------------------------------------------------------------------------

    def _target(self) -> str:
        token = self._next()
        if _PLACEHOLDER.fullmatch(token) is None or token[0] != "#":
            raise Unsupported(f"an update of {token!r}")
        return token

    def setting(self) -> Change:
        target = self._target()
        self._expect("=")
        value = self._value()

        def change(old: Item, new: Item, names: Names, values: Values) -> None:
            found = value(old, names, values)
            if found is None:
                raise CallFailed("ValidationException", "The attribute does not exist in the item")
            new[names[target]] = found

        return change

    def _value(self) -> Operand:
        if self.skip("list_append"):
            left, right = self._arguments()

            def append(*given: Any) -> Attribute:
                one, other = left(*given), right(*given)
                if one is None or other is None or "L" not in one or "L" not in other:
                    raise CallFailed("ValidationException", "incorrect data type for list_append")
                return {"L": one["L"] + other["L"]}

            return append
        if self.skip("if_not_exists"):
            path, default = self._arguments()
            return lambda *given: found if (found := path(*given)) is not None else default(*given)
        return self._operand()

    def _arguments(self) -> tuple[Operand, Operand]:
        self._expect("(")
        one = self._value()
        self._expect(",")
        other = self._value()
        self._expect(")")
        return one, other

    def addition(self) -> Change:
        target, value = self._target(), self._next()

        def change(old: Item, new: Item, names: Names, values: Values) -> None:
            found, added = old.get(names[target]), values[value]
            ((kind, operand),) = added.items()
            if found is not None and kind not in found:
                raise CallFailed("ValidationException", "Type mismatch for ADD")
            if kind == "N":
                number = int(found["N"]) if found else 0
                new[names[target]] = {"N": str(number + int(operand))}
            elif kind == "SS":
                new[names[target]] = {"SS": sorted({*(found["SS"] if found else ()), *operand})}
            else:
                raise Unsupported(f"ADD of {kind}")

        return change

    def removal(self) -> Change:
        target = self._target()

        def change(old: Item, new: Item, names: Names, values: Values) -> None:
            new.pop(names[target], None)

        return change


def _follow(found: Attribute | None, steps: list[tuple[str, str]], names: Names) -> Any:
    for index, name in steps:
        if found is None:
            return None
        if name:
            found = found["M"].get(names[name]) if "M" in found else None
        else:
            items = found.get("L", [])
            found = items[int(index)] if int(index) < len(items) else None
    return found


def _contains(found: Attribute | None, value: Attribute | None) -> bool:
    return found is not None and value is not None and value.get("S") in found.get("SS", ())


def _has_type(found: Attribute | None, kind: Attribute | None) -> bool:
    return found is not None and kind is not None and kind["S"] in found


def _number(attribute: Attribute | None) -> int | None:
    return None if attribute is None or "N" not in attribute else int(attribute["N"])


def _ordered(compare: Callable[[int, int], bool]) -> Callable[..., bool]:
    def test(left: Attribute | None, right: Attribute | None) -> bool:
        one, other = _number(left), _number(right)
        return one is not None and other is not None and compare(one, other)

    return test


_FUNCTIONS: dict[str, Callable[..., bool]] = {
    "attribute_exists": lambda found: found is not None,
    "attribute_not_exists": lambda found: found is None,
    "attribute_type": _has_type,
    "contains": _contains,
}
_COMPARISONS: dict[str, Callable[..., bool]] = {
    "=": lambda left, right: left is not None and left == right,
    "<": _ordered(lambda left, right: left < right),
    "<=": _ordered(lambda left, right: left <= right),
    ">": _ordered(lambda left, right: left > right),
    ">=": _ordered(lambda left, right: left >= right),
}
