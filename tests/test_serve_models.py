"""A server with Amazon Bedrock, an OpenAI-compatible server or a model of one's own behind it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
from tests.models.openai_server import KEY, OpenAIServer, Streams, end, piece, usage
from tests.models.openai_server import Fails as OpenAIFails
from tests.serving import SERVE, Server, StartServer, environment

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
        CHATLEDGER_MAX_TOKENS="300",
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


def test_a_bedrock_model_is_told_how_long_its_reply_may_be(
    client: httpx.Client, bedrock: BedrockServer
) -> None:
    bedrock.script(Says("Hello!"), Says("Hello!"))
    for model in (HAIKU, NOVA):
        send_message(client, "Hi", model_id=model)
        assert bedrock.requests[-1].body["inferenceConfig"] == {"maxTokens": 300}


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
            error = expect_error(answer, status, conversation_id=conversation_id)
            assert (int(answer.headers.get("Retry-After", 0)) >= 1) == (status != 502)
        else:
            *_, (name, event) = parse_events(answer.text)
            assert name == "error"
            error = checked_error(event, conversation_id=conversation_id)
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
    conversation_id = begun["conversation_id"]
    error = checked_error(error, conversation_id=conversation_id)
    assert (last, error["code"]) == ("error", "model_unavailable")
    text = "".join(piece["text"] for _, piece in pieces)
    assert text
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


# OpenAI-compatible servers -----------------------------------------------------------------------

LLAMA = "openai-compatible:llama3.2:3b"


def test_a_model_on_a_compatible_server_answers(start_server: StartServer) -> None:
    with OpenAIServer() as compatible:
        chatbot = start_server(
            CHATLEDGER_MODEL=LLAMA,
            CHATLEDGER_BASE_URL=compatible.url,
            CHATLEDGER_MODEL_API_KEY=KEY,
            CHATLEDGER_SYSTEM_PROMPT="Be brief.",
            CHATLEDGER_MAX_TOKENS="300",
        )
        user = new_user()
        with open_client(chatbot.url) as client:
            conversation_id = send_message(client, MARKER, user_id=user)["conversation_id"]
            compatible.script(Streams([piece("You are"), piece(" Bob."), end("length"), usage()]))
            with open_stream(
                client, message="Who am I?", user_id=user, conversation_id=conversation_id
            ) as response:
                _, *pieces, (last, done) = read_events(response)
            assert "".join(event["text"] for _, event in pieces) == "You are Bob."
            assert (last, done["stop_reason"]) == ("done", "max_tokens")
            compatible.script(OpenAIFails(401, {"error": {"message": f"{SECRET} {KEY}"}}))
            body = {"message": "Hi", "user_id": user, "conversation_id": conversation_id}
            refused = client.post("/chat", json=body)
        error = expect_error(refused, 502, conversation_id=conversation_id)
        assert error["code"] == "model_refused"
        assert compatible.headers[0]["authorization"] == f"Bearer {KEY}"
        assert compatible.bodies[1]["max_tokens"] == 300
        assert [each["content"] for each in compatible.bodies[1]["messages"]] == [
            *("Be brief.", MARKER, "Hello, Bob!", "Who am I?")
        ]
        assert not any(text in chatbot.log() + str(error) for text in (KEY, SECRET, MARKER))


def refused_start(folder: Path, **variables: str) -> str:
    """Return what a server prints that does not start."""
    done = subprocess.run(
        SERVE,
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"CHATLEDGER_MODELS": LLAMA},
            (
                f"{LLAMA} needs the base URL of its server, such as http://127.0.0.1:11434/v1 for "
                "Ollama; set CHATLEDGER_BASE_URL, or pass base_url.\n"
            ),
        ),
        (
            {"CHATLEDGER_MODEL": LLAMA, "CHATLEDGER_BASE_URL": "localhost:11434"},
            (
                "CHATLEDGER_BASE_URL is not valid: The base URL is not one of a server; write it "
                "as in http://127.0.0.1:11434/v1.\n"
            ),
        ),
        (
            {"CHATLEDGER_BASE_URL": "http://127.0.0.1:11434/v1"},
            (
                "CHATLEDGER_BASE_URL is set, but no model is an openai-compatible one; name it "
                "openai-compatible:<model> in CHATLEDGER_MODEL, or unset CHATLEDGER_BASE_URL.\n"
            ),
        ),
        (
            {"CHATLEDGER_MODEL": "my_models:parrot"},
            (
                "There is no module my_models, which my_models:parrot names; run this in the "
                "folder that contains it, or install it. A model of a provider is named by the "
                "provider first, as in openai:gpt-5 or ollama:llama3.2.\n"
            ),
        ),
    ],
    ids=["no base URL", "not a URL", "no model for it", "no module"],
)
def test_a_model_that_cannot_be_opened_stops_the_start_with_a_sentence(
    tmp_path: Path, variables: dict[str, str], sentence: str
) -> None:
    assert refused_start(tmp_path, **variables) == sentence


# Models of one's own -----------------------------------------------------------------------------

PARROT = """
import tabnanny

from chatledger.models import Finished, Usage


class Parrot:
    id = "parrot"

    async def stream(self, messages, *, system_prompt=None):
        yield messages[-1].text
        yield Finished("end_turn", Usage(input_tokens=1, output_tokens=1))


parrot = Parrot()
"""


def test_a_model_of_ones_own_is_served_from_the_folder_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "my_models.py").write_text(PARROT)
    # The module imports one of the standard library whose name a file here has too.
    (tmp_path / "tabnanny.py").write_text("raise ImportError('It is not the standard library.')")
    server = Server(
        tmp_path, CHATLEDGER_MODEL="my_models:parrot", CHATLEDGER_MODELS="my_models:Parrot"
    )
    # Without the folder in the module path, as when the command chatledger is run.
    server.command = [sys.executable, "-P", *SERVE[1:]]
    try:
        server.start()
        with open_client(server.url) as client:
            for name in ("my_models:parrot", "my_models:Parrot"):
                answer = send_message(client, "Hi, I am Bob", user_id=new_user(), model_id=name)
                assert answer["response"] == "Hi, I am Bob"
        assert server.stop() == 0
    finally:
        server.kill()
