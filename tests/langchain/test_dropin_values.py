"""Values of every type are read back equal from DynamoDB, and the old class can read them too."""

import json
import math
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from chatledger.langchain.values import decode_value, encode_value
from tests.langchain.histories import Histories
from tests.langchain.test_dropin import typed_values

NUMBERS = (
    st.integers()
    | st.integers(min_value=-(10**200), max_value=10**200)
    | st.floats()
    | st.floats().map(lambda x: float(round(x)) if math.isfinite(x) else x)
    | st.sampled_from(
        [
            0.0,
            -0.0,
            1.0,
            1e22,
            1e-300,
            5e-324,
            1e125,
            1e126,
            10**37,
            10**38 - 1,
            10**60,
            1e38,
            10**38,
            1e37,
        ]
    )
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(TEXTS.filter(bool), inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=20,
)


@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(value=VALUES)
def test_values_are_read_back_equal_and_of_the_same_types(hash_only: Histories, value: Any) -> None:
    history = hash_only.open()
    history.clear()
    messages = [HumanMessage("x"), AIMessage("x", additional_kwargs={"value": value})]
    history.add_messages(messages)
    assert typed_values(history.messages) == typed_values(messages)
    assert [message.content for message in hash_only.open_old().messages] == ["x", "x"]


@given(value=VALUES)
def test_notes_restore_values_after_a_json_round_trip(value: Any) -> None:
    attribute, notes = encode_value(value, "value")
    assert repr(decode_value(attribute, json.loads(json.dumps(notes)))) == repr(value)


def test_deeply_nested_values_and_empty_names_are_stored(hash_only: Histories) -> None:
    deep: Any = 1.0
    for _ in range(60):
        deep = {"deeper": [deep]}
    messages = [AIMessage("x", additional_kwargs={"deep": deep, "unnamed": {"": {"a": 2.0}}})]
    hash_only.open().add_messages(messages)
    assert typed_values(hash_only.open().messages) == typed_values(list(messages))
    assert len(hash_only.open_old().messages) == 1


def test_a_decimal_is_read_back_as_an_int_or_a_float(hash_only: Histories) -> None:
    given = {"whole": Decimal(3), "part": Decimal("0.1")}
    hash_only.open().add_messages([AIMessage("x", additional_kwargs=given)])
    found = hash_only.open().messages[0].additional_kwargs
    assert {name: repr(value) for name, value in found.items()} == {"whole": "3", "part": "0.1"}


def test_the_old_class_reads_plain_numbers(hash_only: Histories) -> None:
    given = {"whole": 1.0, "part": 0.25, "count": 7}
    hash_only.open().add_messages([AIMessage("x", additional_kwargs=given)])
    assert hash_only.open_old().messages[0].additional_kwargs == {
        "whole": Decimal(1),
        "part": Decimal("0.25"),
        "count": Decimal(7),
    }
