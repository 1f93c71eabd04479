"""The tables of the laws are complete: they leave out no operation, no parameter and no field."""

from inspect import isfunction

from chatledger.conversations import DESCRIPTION_FIELDS
from chatledger.stores.contract import Store
from chatledger.testing.store_contract.descriptions import FIELDS
from chatledger.testing.store_contract.operation_table import CALLS, INVALID_VALUES, parameters_of

NO_OPERATIONS = ("perform", "close", "check_writable")
OPERATIONS = [
    name
    for name, member in vars(Store).items()
    if isfunction(member) and not name.startswith("_") and name not in NO_OPERATIONS
]


def test_every_operation_of_the_contract_is_called() -> None:
    called = {call.operation for call in CALLS}
    assert called == set(OPERATIONS), "each operation of Store needs a Call in CALLS"


def test_every_parameter_has_its_invalid_values() -> None:
    missing = [
        f"{operation}({parameter})"
        for operation in OPERATIONS
        for parameter in parameters_of(operation)
        if parameter not in INVALID_VALUES
    ]
    assert not missing, (
        "each parameter needs an entry in INVALID_VALUES, an empty one if all are valid"
    )


def test_every_entry_is_of_a_parameter() -> None:
    names = {
        name
        for operation in OPERATIONS
        for parameter in parameters_of(operation)
        for name in (parameter, f"{operation}({parameter})")
    }
    assert INVALID_VALUES.keys() <= names


def test_every_field_of_descriptions_has_its_examples() -> None:
    assert tuple(FIELDS) == DESCRIPTION_FIELDS


def test_calls_can_be_told_apart() -> None:
    names = [call.name for call in CALLS]
    assert len(set(names)) == len(names)
