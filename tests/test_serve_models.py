"""A server with Amazon Bedrock as its model, over HTTP to a fake of Bedrock."""

from collections.abc import Iterator

import httpx
import pytest

from chatledger.testing.bedrock_server import (
    BedrockServer,
    DropsConnection,
    Fails,
    FailsMidStream,
    Says,
    Throttles,
)
from tests.http.client import (
    MARKER,
    checked_error,
    expect_error,
    new_user,
    open_client,
    open_stream,
    parse_events,
    read_conversation,
    read_events,
    send_message,
    success_body,
    transcript,
)
from tests.serving import Server, StartServer

HAIKU = "bedrock:anthropic.claude-3-haiku-20240307-v1:0"
NOVA = "bedrock:amazon.nova-lite-v1:0"
SECRET = "what the service says of the prompt"
"""In the text of each Bedrock error; no client and no log may show it."""


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
    with open_client(bedrock_chatbot.url) as client:
        yield client


def test_a_bedrock_model_answers_and_sees_earlier_messages(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    user = new_user()
    bedrock.script(Says("Hello, Bob!"), Says("You are Bob."))
    conversation_id = send_message(client, "Hi, I am Bob", user_id=user)["conversation_id"]
    answer = send_message(client, "Who am I?", user_id=user, conversation_id=conversation_id)
    assert answer["response"] == "You are Bob."
    asked = bedrock.requests[-1]
    assert asked.model_id == HAIKU.removeprefix("bedrock:")
    assert asked.body["system"] == [{"text": "Be brief."}]
    assert [message["role"] for message in asked.body["messages"]] == ["user", "assistant", "user"]


def test_a_request_may_ask_only_for_a_listed_model(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    bedrock.script(Says("Nova here."))
    assert send_message(client, "Hi", model_id=NOVA)["response"] == "Nova here."
    assert bedrock.requests[-1].model_id == NOVA.removeprefix("bedrock:")
    assert "offline demonstration" in send_message(client, "Hi", model_id="offline")["response"]
    for other in (MARKER, "bedrock:amazon.nova-micro-v1:0", HAIKU.upper(), ""):
        error = expect_error(client.post("/chat", json={"message": "Hi", "model_id": other}), 400)
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
def test_each_model_error_has_its_status_and_leaks_no_details(
    client: httpx.Client,
    bedrock: BedrockServer,
    bedrock_chatbot: Server,
    fault: Fails,
    status: int,
    code: str,
) -> None:
    user, conversation_id = new_user(), new_user()
    body = {"message": MARKER, "user_id": user, "conversation_id": conversation_id}
    for path in ("/chat", "/chat/stream"):
        bedrock.reset()
        bedrock.script(fault)
        answer = client.post(path, json=body)
        if path == "/chat":
            error = expect_error(answer, status)
            assert (int(answer.headers.get("Retry-After", 0)) >= 1) == (status != 502)
        else:
            *_, (name, event) = parse_events(answer.text)
            assert name == "error"
            error = checked_error(event)
        assert error["code"] == code
        assert SECRET not in str(error)
    # The user's message is stored, once, and the next turn works.
    assert transcript(read_conversation(client, conversation_id)) == [("user", MARKER)]
    bedrock.reset()
    bedrock.script(Says("Here I am."))
    assert send_message(client, "Are you there?", user_id=user, conversation_id=conversation_id)[
        "response"
    ]
    assert SECRET not in bedrock_chatbot.log()
    assert MARKER not in bedrock_chatbot.log()


@pytest.mark.parametrize(
    "fault",
    [
        DropsConnection(after=2),
        FailsMidStream("modelStreamErrorException", after=2, message=SECRET),
    ],
    ids=["the connection breaks", "an error comes in the stream"],
)
def test_an_interrupted_reply_is_saved_as_far_as_it_came(
    client: httpx.Client, bedrock: BedrockServer, fault: DropsConnection | FailsMidStream
) -> None:
    user = new_user()
    bedrock.script(fault, Says("As I said."))
    with open_stream(client, message="Hi, I am Bob", user_id=user) as response:
        (_, begun), *pieces, (last, error) = read_events(response)
    assert (last, checked_error(error)["code"]) == ("error", "model_unavailable")
    text = "".join(piece["text"] for _, piece in pieces)
    assert text
    conversation_id = begun["conversation_id"]
    assert transcript(read_conversation(client, conversation_id)) == [
        ("user", "Hi, I am Bob"),
        ("assistant", text),
    ]
    assert read_conversation(client, conversation_id)["messages"][1]["stop_reason"] == "failed"
    send_message(client, "Go on", user_id=user, conversation_id=conversation_id)


def test_the_response_says_that_the_model_cut_the_reply_short(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    bedrock.script(Says("Once upon a", stop_reason="max_tokens"))
    answer = success_body(client.post("/chat", json={"message": "Tell me", "user_id": new_user()}))
    assert (answer["response"], answer["stop_reason"]) == ("Once upon a", "max_tokens")


def test_a_throttled_call_is_retried(client: httpx.Client, bedrock: BedrockServer) -> None:
    bedrock.script(Throttles(), Says("Here I am."))
    assert send_message(client, "Hi", user_id=new_user())["response"] == "Here I am."
