"""Requests that are made up from the description get no other responses than described ones."""

from copy import deepcopy
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import APIOperation, GenerationMode
from schemathesis.core.result import Ok

from chatledger.http.endpoints import IMPORT_PATH
from chatledger.http.openapi import EVENT_STREAM, describe_api
from tests.http.client import SECONDS
from tests.serving import Server, StartServer


def description() -> dict[str, Any]:
    """Return the description, in which the schema of a stream is that of each event.

    Schemathesis reads it so; OpenAPI 3.1 does not say how to describe events.
    """
    document = deepcopy(describe_api(has_sign_in=False))
    for operations in document["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                stream = response.get("content", {}).get(EVENT_STREAM)
                if stream is not None:
                    stream["schema"] = {
                        "type": "object",
                        "properties": {
                            "event": {"enum": list(stream["x-events"])},
                            "data": {"type": "string"},
                        },
                        "required": ["event", "data"],
                    }
    return document


CONFIG = schemathesis.Config.from_dict(
    {
        # What the description allows may still be refused because of what is stored, such as a
        # cursor that comes from no list.
        "checks": {"positive_data_acceptance": {"enabled": False}},
        # A conversation may have the id "import", so its methods are allowed there too.
        "operations": [
            {
                "include-path": IMPORT_PATH,
                "checks": {"allow_header_conformance": {"enabled": False}},
            }
        ],
    }
)
API = schemathesis.openapi.from_dict(description(), config=CONFIG)


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(CHATLEDGER_OFFLINE_PACE="0")


OPERATIONS = [found.ok() for found in API.get_all_operations() if isinstance(found, Ok)]
REQUESTS = [
    pytest.param(operation, mode, id=f"{operation.label} {mode.value}")
    for operation in OPERATIONS
    for mode in GenerationMode
    # A request without anything in it cannot be wrong.
    if mode is GenerationMode.POSITIVE or operation.body or any(operation.iter_parameters())
]


# The decorator of schemathesis gives all its tests one id, and of those xdist runs one.
@pytest.mark.parametrize(("operation", "mode"), REQUESTS)
def test_every_response_is_described_and_no_server_error(
    operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, server: Server
) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=10, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    def check(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(base_url=server.url, timeout=SECONDS)

    check()
