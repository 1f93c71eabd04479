"""Laws of invalid arguments: they are rejected, and nothing is written."""

import pytest

from chatledger.errors import InvalidArgument
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.helpers import (
    assert_unchanged,
    ids_of,
    list_all,
    start_conversation,
)
from chatledger.testing.store_contract.operation_table import CALLS, invalid_values, parameters_of
from chatledger.values import new_id

CASES = [
    (operation, parameter)
    for operation in dict.fromkeys(call.operation for call in CALLS)
    for parameter in parameters_of(operation)
    if invalid_values(operation, parameter)
]
"""Each operation with each parameter for which some values are invalid."""


class InvalidArgumentLaws:
    """``InvalidArgument`` for every parameter of every operation."""

    @pytest.mark.parametrize(
        ("operation", "parameter"), CASES, ids=[f"{name}({parameter})" for name, parameter in CASES]
    )
    def test_an_invalid_argument_is_rejected_and_nothing_is_written(
        self, subject: Store, operation: str, parameter: str
    ) -> None:
        existing = start_conversation(subject, "hello", owner=new_id())
        missing = existing._replace(id=new_id())
        with assert_unchanged(subject, existing.id), assert_unchanged(subject, missing.id):
            for call in CALLS:
                if call.operation != operation:
                    continue
                for conversation in (existing, missing):
                    for value in invalid_values(operation, parameter):
                        with pytest.raises(InvalidArgument):
                            call(subject, conversation, **{parameter: value})
        # Neither has a conversation with a new id been created.
        assert existing.owner
        assert ids_of(list_all(subject, existing.owner)) == [existing.id]
