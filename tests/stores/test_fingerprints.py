"""Fingerprints stay what they are: stored ones must match the same calls in later versions."""

from datetime import timedelta
from typing import Any, cast

import pytest

from chatledger.stores.contract import Store
from chatledger.stores.operations import Create, Operation


class Asked(Store):
    """A store that returns what it is asked to do."""

    def perform(self, operation: Operation[Any]) -> Any:
        return operation

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("arguments", "fingerprint"),
    [
        ({"owner": "o"}, "kjYNA0DM2P75LPJgowjg"),
        ({"owner": "o", "title": "", "metadata": {}}, "kjYNA0DM2P75LPJgowjg"),
        ({"title": "x"}, "MNMX2u9i4nb7AhFjqlgT"),
        ({"metadata": {"a": 1}, "expires_in": timedelta(days=2)}, "Tg_Pum2g6j9ks0JsifZE"),
        (
            {
                "owner": "o",
                "title": "T",
                "metadata": {"z": [1, 1.0, None], "a": "\u00e9"},
                "expires_in": timedelta(hours=1),
            },
            "7vdW_M-NLZENdGF_Ddyr",
        ),
    ],
)
def test_a_create_has_the_fingerprint_that_earlier_versions_stored(
    arguments: dict[str, Any], fingerprint: str
) -> None:
    asked = cast(Create, Asked().create("trip", **arguments, idempotency_key="k"))
    assert asked.creation == ("M-FrxIABnuSoa2-wwCZQ", fingerprint)
