"""A server with Amazon Bedrock behind it, over its wire: what a client is told, and what stays."""

from collections.abc import Iterator

import httpx
import pytest

from chatledger.testing.bedrock_server import (
    BedrockServer,
    BreaksOff,
    Fails,
    FailsMidway,
    Says,
    Throttles,
)
from tests.http.client import (
    MARKER,
    answer_of,
    connected,
    error_in,
    events,
    events_of,
    refused,
    said,
    shown,
    someone,
    streamed,
    talk,
)
from tests.serving import Server, StartServer

HAIKU = "bedrock:anthropic.claude-3-haiku-20240307-v1:0"
NOVA = "bedrock:amazon.nova-lite-v1:0"
SECRET = "what the service says of the prompt"
"""In the text of each error of the service, and to be seen by no client and in no log."""


@pytest.fixture(scope="module")
def bedrock() -> Iterator[BedrockServer]:
    with BedrockServer() as bedrock:
        yield bedrock


@pytest.fixture(scope="module")
def bedrock_chatbot(start_server: StartServer, bedrock: BedrockServer) -> Server:

    return start_server(
        CHATLEDGER_MODEL=HAIKU,
        CHATLEDGER_MODELS=f"{NOVA}, offline",
        CHATLEDGER_SYSTEM_PROMPT="Be brief.",
        **bedrock.environment,
    )


@pytest.fixture
def client(bedrock_chatbot: Server, bedrock: BedrockServer) -> Iterator[httpx.Client]:
    bedrock.reset()
    with connected(bedrock_chatbot.url) as client:
        yield client


def test_a_model_of_bedrock_answers_and_sees_what_was_said_before(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    user = someone()
    bedrock.script(Says("Hello, Bob!"), Says("You are Bob."))
    place = said(client, "Hi, I am Bob", user_id=user)["conversation_id"]
    answer = said(client, "Who am I?", user_id=user, conversation_id=place)
    assert answer["response"] == "You are Bob."
    asked = bedrock.requests[-1]
    assert asked.model_id == HAIKU.removeprefix("bedrock:")
    assert asked.body["system"] == [{"text": "Be brief."}]
    assert [message["role"] for message in asked.body["messages"]] == ["user", "assistant", "user"]


def test_a_request_may_ask_for_a_model_of_the_list_and_for_no_other(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    bedrock.script(Says("Nova here."))
    assert said(client, "Hi", model_id=NOVA)["response"] == "Nova here."
    assert bedrock.requests[-1].model_id == NOVA.removeprefix("bedrock:")
    assert "offline demonstration" in said(client, "Hi", model_id="offline")["response"]
    for other in (MARKER, "bedrock:amazon.nova-micro-v1:0", HAIKU.upper(), ""):
        error = refused(client.post("/chat", json={"message": "Hi", "model_id": other}), 400)
        assert error["code"] == "unknown_model"
        assert all(name in error["error"] for name in (HAIKU, NOVA, "offline"))


FAULTS = {
    "throttled": (Fails("ThrottlingException", SECRET, times=99), 429, "model_throttled"),
    "unavailable": (
        Fails("ServiceUnavailableException", SECRET, times=99),
        503,
        "model_unavailable",
    ),
    "timed out": (Fails("ModelTimeoutException", SECRET, times=99), 504, "model_timeout"),
    "no access": (Fails("AccessDeniedException", SECRET), 502, "model_refused"),
    "not valid": (Fails("ValidationException", SECRET), 502, "model_refused"),
}


@pytest.mark.parametrize(("fault", "status", "code"), FAULTS.values(), ids=FAULTS)
def test_each_error_of_a_model_has_its_status_and_says_nothing_of_its_own(
    client: httpx.Client,
    bedrock: BedrockServer,
    bedrock_chatbot: Server,
    fault: Fails,
    status: int,
    code: str,
) -> None:
    user, place = someone(), someone()
    body = {"message": MARKER, "user_id": user, "conversation_id": place}
    for path in ("/chat", "/chat/stream"):
        bedrock.reset()
        bedrock.script(fault)
        answer = client.post(path, json=body)
        if path == "/chat":
            error = refused(answer, status)
            assert (int(answer.headers.get("Retry-After", 0)) >= 1) == (status != 502)
        else:
            *_, (name, event) = events_of(answer.text)
            assert name == "error"
            error = error_in(event)
        assert error["code"] == code
        assert SECRET not in str(error)
    # What the user said is kept, once, and the next turn works.
    assert talk(shown(client, place)) == [("user", MARKER)]
    bedrock.reset()
    bedrock.script(Says("Here I am."))
    assert said(client, "Are you there?", user_id=user, conversation_id=place)["response"]
    assert SECRET not in bedrock_chatbot.log()
    assert MARKER not in bedrock_chatbot.log()


@pytest.mark.parametrize(
    "fault",
    [BreaksOff(after=2), FailsMidway("modelStreamErrorException", after=2, message=SECRET)],
    ids=["the connection breaks", "an error comes in the stream"],
)
def test_a_reply_that_breaks_off_is_kept_as_far_as_it_came(
    client: httpx.Client, bedrock: BedrockServer, fault: BreaksOff | FailsMidway
) -> None:
    user = someone()
    bedrock.script(fault, Says("As I said."))
    with streamed(client, message="Hi, I am Bob", user_id=user) as response:
        (_, begun), *pieces, (last, error) = events(response)
    assert (last, error_in(error)["code"]) == ("error", "model_unavailable")
    text = "".join(piece["text"] for _, piece in pieces)
    assert text
    place = begun["conversation_id"]
    assert talk(shown(client, place)) == [("user", "Hi, I am Bob"), ("assistant", text)]
    assert shown(client, place)["messages"][1]["stop_reason"] == "failed"
    said(client, "Go on", user_id=user, conversation_id=place)


def test_a_reply_that_the_model_cut_short_says_so(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    bedrock.script(Says("Once upon a", stop_reason="max_tokens"))
    answer = answer_of(client.post("/chat", json={"message": "Tell me", "user_id": someone()}))
    assert (answer["response"], answer["stop_reason"]) == ("Once upon a", "max_tokens")


def test_one_throttled_try_is_made_good(client: httpx.Client, bedrock: BedrockServer) -> None:
    bedrock.script(Throttles(), Says("Here I am."))
    assert said(client, "Hi", user_id=someone())["response"] == "Here I am."
