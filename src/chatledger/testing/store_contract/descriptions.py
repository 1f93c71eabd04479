"""The fields of descriptions in one table, with the values that the laws give them."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from chatledger.conversations import (
    DEFAULT_DESCRIPTION,
    MAX_METADATA_BYTES,
    MAX_TITLE_CHARACTERS,
    Description,
)


class FieldExamples(NamedTuple):
    """Values of a field of the description, as operations take them."""

    one: Any
    another: Any
    cleared: Any
    """The value with which ``update`` sets the default."""
    invalid: list[Any]


FIELDS = {
    "title": FieldExamples(
        one="Plans",
        another="Other plans",
        cleared="",
        invalid=["x" * (MAX_TITLE_CHARACTERS + 1), "\ud800", b"title", 7, True],
    ),
    "metadata": FieldExamples(
        one={"a": [1, 1.0, None]},
        another={"b": 2},
        cleared={},
        invalid=[
            "text",
            [],
            7,
            {1: "a"},
            {"a": b"bytes"},
            {"a": (1, 2)},
            {"a": {1, 2}},
            {"a": math.nan},
            {"a": math.inf},
            {"a": "\ud800"},
            {"a": 2**2_001},
            {"a": "x" * MAX_METADATA_BYTES},
        ],
    ),
}
ONE = {name: examples.one for name, examples in FIELDS.items()}
ANOTHER = {name: examples.another for name, examples in FIELDS.items()}
CLEARED = {name: examples.cleared for name, examples in FIELDS.items()}

each_field = pytest.mark.parametrize("field", FIELDS)
"""Parametrizes a law with the names of the fields."""


def changed_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what these arguments of an operation make of the fields that they do not leave."""
    return {
        name: getattr(DEFAULT_DESCRIPTION, name) if value == FIELDS[name].cleared else value
        for name, value in values.items()
        if value is not None
    }


def described(values: Mapping[str, Any]) -> Description:
    """Return the description of a conversation that begins with these arguments."""
    return Description(**changed_fields(values))
