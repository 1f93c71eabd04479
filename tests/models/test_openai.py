"""Models behind OpenAI's Chat Completions API, against a real HTTP server, async and sync."""

import asyncio
import json
import logging
import os
import threading
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import aclosing, closing
from typing import Any, Literal, TypeAlias

import pytest

from chatledger.errors import (
    InvalidArgument,
    ModelError,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
)
from chatledger.messages import Message
from chatledger.models import Finished, Usage, open_model
from chatledger.models.openai import OpenAIModel
from tests.models.openai_server import (
    HELLO,
    KEY,
    Fails,
    OpenAIServer,
    Streams,
    call,
    delta,
    end,
    piece,
    usage,
)

Interface: TypeAlias = Literal["async", "sync"]
SECRET = "what the server says of the prompt"
QUESTION = "my PIN is 1234"
PNG = b"\x89PNG\r\n\x1a\n and more"
WEATHER = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture(params=["async", "sync"])
def interface(request: pytest.FixtureRequest) -> Interface:
    chosen: Interface = request.param
    return chosen


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    for name in os.environ:
        if name.startswith("OPENAI_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with OpenAIServer() as server:
        yield server


def compatible(server: OpenAIServer, *, patience: float = 0.0, **options: Any) -> OpenAIModel:
    """Return a model on ``server``; without patience it makes one attempt."""
    return OpenAIModel("llama3.2", base_url=server.url, patience=patience, **options)


def ask(
    interface: Interface,
    model: OpenAIModel,
    messages: Sequence[Message] = (Message.user(QUESTION),),
    *,
    system_prompt: str | None = None,
    delivered: list[str] | None = None,
) -> tuple[list[str], Finished]:
    """Return the reply's pieces and its end; append the pieces to ``delivered`` as they come."""
    pieces = [] if delivered is None else delivered
    ends: list[Finished] = []

    def take(item: str | Finished) -> None:
        if isinstance(item, Finished):
            ends.append(item)
        else:
            pieces.append(item)

    async def ask_async() -> None:
        async with aclosing(model.stream(messages, system_prompt=system_prompt)) as reply:
            async for item in reply:
                take(item)

    async def finish() -> None:
        try:
            if interface == "async":
                await ask_async()
        finally:
            await model.close()

    try:
        if interface == "sync":
            with closing(model.stream_sync(messages, system_prompt=system_prompt)) as reply:
                for item in reply:
                    take(item)
    finally:
        asyncio.run(finish())
    [finished] = ends
    return pieces, finished


# Replies -----------------------------------------------------------------------------------------


def test_a_reply_comes_in_pieces_and_ends_with_its_usage(
    server: OpenAIServer, interface: Interface
) -> None:
    details = {"cached_tokens": 4, "cache_write_tokens": 2}
    server.script(Streams([piece("Hel"), piece("lo"), end(), usage(7, 5, **details)]))
    pieces, finished = ask(interface, compatible(server))
    assert pieces == ["Hel", "lo"]
    assert (finished.stop_reason, finished.usage) == ("end_turn", Usage(7, 5, 4, 2))
    assert finished.latency_ms is not None
    assert finished.latency_ms >= 0
    assert server.paths == ["/v1/chat/completions"]
    assert server.bodies == [
        {
            "model": "llama3.2",
            "messages": [{"role": "user", "content": QUESTION}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


@pytest.mark.parametrize(
    ("reason", "ours"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "content_filtered"),
        ("eos", "eos"),
    ],
)
def test_each_stop_reason_has_its_name_here(server: OpenAIServer, reason: str, ours: str) -> None:
    server.script(Streams([piece("Hi"), end(reason)]))
    _, finished = ask("sync", compatible(server))
    assert (finished.stop_reason, finished.usage) == (ours, None)


def test_tool_calls_are_put_together_from_their_fragments(
    server: OpenAIServer, interface: Interface
) -> None:
    fragments = [
        call(0, "", id="call_1", name="weather"),
        call(0, '{"city": '),
        call(0, '"Bergen"}'),
        call(1, "", id="call_2", name="time"),
    ]
    server.script(Streams([piece("Let me see."), *fragments, end("tool_calls"), usage()]))
    pieces, finished = ask(interface, compatible(server, tools=[WEATHER]))
    assert pieces == ["Let me see."]
    assert finished.stop_reason == "tool_use"
    first = {"id": "call_1", "name": "weather", "args": {"city": "Bergen"}, "type": "tool_call"}
    second = {"id": "call_2", "name": "time", "args": {}, "type": "tool_call"}
    assert finished.tool_calls == [first, second]


def test_calls_that_share_an_index_are_told_apart_by_their_ids(server: OpenAIServer) -> None:
    fragments = [call(0, "{}", id="1", name="a"), call(0, "{}", id="2", name="b")]
    server.script(Streams([*fragments, end("stop")]))
    _, finished = ask("sync", compatible(server))
    assert [each["name"] for each in finished.tool_calls] == ["a", "b"]
    assert finished.stop_reason == "tool_use"


def test_a_call_that_the_token_limit_cut_off_is_left_out(server: OpenAIServer) -> None:
    fragments = [call(0, "{}", id="1", name="a"), call(1, '{"ci', id="2", name="b")]
    server.script(Streams([*fragments, end("length")]))
    _, finished = ask("sync", compatible(server))
    assert [each["name"] for each in finished.tool_calls] == ["a"]
    assert finished.stop_reason == "max_tokens"


def test_a_malformed_call_is_tried_again(server: OpenAIServer, interface: Interface) -> None:
    malformed = Streams([call(0, '{"ci', id="1", name="a"), end("tool_calls")])
    server.script(malformed)
    assert ask(interface, compatible(server, patience=20))[0] == ["Hello,", " Bob!"]
    server.script(malformed)
    with pytest.raises(ModelUnavailable, match="malformed tool call"):
        ask(interface, compatible(server))


def test_reasoning_is_left_out_and_a_refusal_is_the_reply(server: OpenAIServer) -> None:
    server.script(
        Streams([delta(reasoning_content="Hm."), delta(refusal="I will not."), end(), usage()])
    )
    assert ask("sync", compatible(server))[0] == ["I will not."]


def test_a_lone_surrogate_in_a_piece_can_be_stored(server: OpenAIServer) -> None:
    server.script(Streams([piece("a\ud83d"), end()]))
    assert ask("sync", compatible(server))[0] == ["a�"]


# Requests ----------------------------------------------------------------------------------------


def test_instructions_calls_and_results_are_sent_as_the_api_has_them(
    server: OpenAIServer, interface: Interface
) -> None:
    long_id = "x" * 50
    calls: list[dict[str, Any]] = [
        {"id": "call_1", "name": "weather", "args": {"city": "Bergen"}, "type": "tool_call"},
        {"id": long_id, "name": "what time?", "args": {}, "type": "tool_call"},
    ]
    messages = [
        Message.system("The user is Bob."),
        Message.user("How is the weather?"),
        Message.assistant("", tool_calls=calls),
        Message.tool("Rain", tool_call_id="call_1"),
        Message.tool("", tool_call_id=long_id),
        Message.assistant("It rains."),
        Message.user("Thanks"),
    ]
    ask(interface, compatible(server), messages, system_prompt="Be brief.")
    system, user, assistant, first, second, *rest = server.bodies[0]["messages"]
    assert system == {"role": "system", "content": "Be brief.\n\nThe user is Bob."}
    assert user == {"role": "user", "content": "How is the weather?"}
    one, other = assistant["tool_calls"]
    assert assistant["content"] is None
    assert one["function"]["name"] == "weather"
    assert json.loads(one["function"]["arguments"]) == {"city": "Bergen"}
    assert other["function"]["name"].startswith("what_time_")
    assert len(other["id"]) == 40
    assert first == {"role": "tool", "tool_call_id": "call_1", "content": "Rain"}
    assert second == {"role": "tool", "tool_call_id": other["id"], "content": "(empty)"}
    assert rest == [
        {"role": "assistant", "content": "It rains."},
        {"role": "user", "content": "Thanks"},
    ]


def test_images_are_sent_and_other_media_are_named(server: OpenAIServer) -> None:
    link = "https://example.com/bergen.png"
    content: list[Any] = [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "base64": b64encode(PNG).decode()},
        {"type": "image_url", "image_url": {"url": link}},
        {"type": "audio", "data": "UklGRg=="},
    ]
    ask("sync", compatible(server), [Message.user(content)])
    text, image, linked, audio = server.bodies[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is this?"}
    assert image["image_url"]["url"] == f"data:image/png;base64,{b64encode(PNG).decode()}"
    assert linked == {"type": "image_url", "image_url": {"url": link}}
    assert audio == {"type": "text", "text": "(a recording that cannot be shown)"}
    ask("sync", compatible(server), [Message.user([content[0], content[3]])])
    assert server.bodies[1]["messages"][0]["content"] == (
        "What is this?\n(a recording that cannot be shown)"
    )


def test_settings_are_sent_under_the_names_that_the_server_knows(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        "max_tokens": 300,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "tools": [WEATHER],
        "additional_fields": {"seed": 7},
    }
    ask("sync", compatible(server, tool_choice="any", **options))
    common = {"temperature": 0.5, "top_p": 0.9, "stop": ["END"], "seed": 7}
    function = {"name": "weather", "parameters": WEATHER["input_schema"]}
    common["tools"] = [{"type": "function", "function": function}]
    sent = server.bodies[0]
    assert sent.items() >= (common | {"max_tokens": 300, "tool_choice": "required"}).items()
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    ask("sync", OpenAIModel("gpt-5", api_key=KEY, tool_choice="weather", **options))
    sent = server.bodies[1]
    named = {"type": "function", "function": {"name": "weather"}}
    assert sent.items() >= (common | {"max_completion_tokens": 300, "tool_choice": named}).items()
    assert "max_tokens" not in sent


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tools": [{"name": "what time?"}]}, "rename 'what time\\?'"),
        ({"tools": ["weather"]}, "A tool must be a dict"),
        ({"tool_choice": "any"}, "needs tools to choose from"),
        ({"tools": [WEATHER], "tool_choice": "time"}, "no tool of that name"),
        ({"base_url": "127.0.0.1:11434"}, "http://127.0.0.1:11434/v1"),
        ({"base_url": "http://:11434/v1"}, "http://127.0.0.1:11434/v1"),
        ({"base_url": ""}, "http://127.0.0.1:11434/v1"),
    ],
)
def test_an_argument_that_is_not_valid_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=sentence):
        OpenAIModel("m", **({"base_url": "http://127.0.0.1:1/v1"} | options))


# Names and keys ----------------------------------------------------------------------------------


def test_an_openai_model_is_opened_by_name_with_the_key_of_the_environment(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelRefused, match="openai:gpt-5 needs a key; set OPENAI_API_KEY"):
        open_model("openai:gpt-5")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    # The base URL and its key are those of another server.
    model = open_model("openai:gpt-5", base_url="http://127.0.0.1:1/v1", api_key="another")
    assert isinstance(model, OpenAIModel)
    assert model.id == "openai:gpt-5"
    assert ask("sync", model)[0] == ["Hello,", " Bob!"]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_a_compatible_model_needs_a_base_url_and_may_have_a_key(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        open_model("openai-compatible:llama3.2:3b")
    assert str(refused.value) == (
        "openai-compatible:llama3.2:3b needs the base URL of its server, such as "
        "http://127.0.0.1:11434/v1 for Ollama; set CHATLEDGER_BASE_URL, or pass base_url."
    )
    monkeypatch.setenv("OPENAI_API_KEY", "for OpenAI only")
    for key, sent in ((None, "Bearer none"), (KEY, f"Bearer {KEY}")):
        model = open_model("openai-compatible:llama3.2:3b", base_url=server.url, api_key=key)
        assert isinstance(model, OpenAIModel)
        assert model.id == "openai-compatible:llama3.2:3b"
        ask("sync", model)
        assert server.headers[-1]["authorization"] == sent
        assert server.bodies[-1]["model"] == "llama3.2:3b"


# Errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (400, ModelRefused, "the window may be too long"),
        (401, ModelRefused, "CHATLEDGER_MODEL_API_KEY"),
        (403, ModelRefused, "its key may use the model"),
        (404, ModelRefused, "the base URL, which often ends in /v1"),
        (408, ModelTimeout, "try again"),
        (429, ModelThrottled, "try again later"),
        (500, ModelUnavailable, "try again later"),
        (503, ModelUnavailable, "try again later"),
    ],
)
def test_each_status_has_its_error_which_says_what_to_do(
    server: OpenAIServer, interface: Interface, status: int, kind: type[ModelError], advice: str
) -> None:
    error = {"message": f"{SECRET} {KEY}", "type": SECRET, "code": SECRET}
    server.script(Fails(status, {"error": error}, {"Retry-After": "7"}))
    with pytest.raises(kind) as raised:
        ask(interface, compatible(server, api_key=KEY))
    assert type(raised.value) is kind
    assert advice in str(raised.value)
    assert str(raised.value).startswith("openai-compatible:llama3.2 ")
    assert not any(text in str(raised.value) for text in (SECRET, KEY, QUESTION))
    if isinstance(raised.value, ModelThrottled):
        assert raised.value.retry_after == 7
    assert len(server.bodies) == 1


def test_an_account_without_credit_is_refused_and_not_throttled(server: OpenAIServer) -> None:
    server.script(Fails(429, {"error": {"message": SECRET, "code": "insufficient_quota"}}))
    with pytest.raises(ModelRefused, match="check the account's billing"):
        ask("sync", compatible(server, patience=20))
    assert len(server.bodies) == 1


def test_a_wrong_key_of_openai_is_named_by_its_variable(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.script(Fails(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}))
    with pytest.raises(ModelRefused, match="OPENAI_API_KEY") as raised:
        ask("sync", OpenAIModel("gpt-5"))
    assert KEY not in str(raised.value)


def test_a_failed_call_is_tried_again_until_a_piece_was_delivered(
    server: OpenAIServer, interface: Interface
) -> None:
    throttled = Fails(429, None, {"Retry-After": "0"})
    server.script(throttled, Fails(503), Streams([], then="cut"))
    assert ask(interface, compatible(server, patience=20))[0] == ["Hello,", " Bob!"]
    assert len(server.bodies) == 4
    server.script(Streams([piece("Hel")], then="cut"))
    delivered: list[str] = []
    with pytest.raises(ModelUnavailable):
        ask(interface, compatible(server, patience=20), delivered=delivered)
    assert delivered == ["Hel"]
    assert len(server.bodies) == 5


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (Streams([piece("Hel")], then="cut"), ModelUnavailable),
        (Streams([piece("Hel")]), ModelUnavailable),
        (Streams([piece("Hel"), '{"choices": [{"del']), ModelUnavailable),
        (Streams([piece("Hel"), '{"choices": "none"}']), ModelUnavailable),
        (
            Streams([piece("Hel"), json.dumps({"error": {"message": SECRET, "code": 503}})]),
            ModelUnavailable,
        ),
        (
            Streams([piece("Hel"), json.dumps({"error": {"message": SECRET, "code": "429"}})]),
            ModelThrottled,
        ),
        (
            Streams(
                [
                    piece("Hel"),
                    json.dumps({"error": {"message": SECRET, "code": "rate_limit_exceeded"}}),
                ]
            ),
            ModelThrottled,
        ),
    ],
    ids=["cut", "no end", "half a chunk", "another form", "error", "throttled", "named"],
)
def test_a_reply_that_breaks_off_delivers_its_pieces_and_then_an_error(
    server: OpenAIServer, interface: Interface, response: Streams, kind: type[ModelError]
) -> None:
    server.script(response)
    delivered: list[str] = []
    with pytest.raises(kind) as raised:
        ask(interface, compatible(server), delivered=delivered)
    assert delivered == ["Hel"]
    assert SECRET not in str(raised.value)


def test_a_connection_that_breaks_after_the_end_of_the_reply_loses_only_the_usage(
    server: OpenAIServer, interface: Interface
) -> None:
    server.script(Streams([piece("Hi"), end()], then="cut"))
    pieces, finished = ask(interface, compatible(server))
    assert pieces == ["Hi"]
    assert (finished.stop_reason, finished.usage) == ("end_turn", None)


def test_a_model_that_sends_nothing_times_out(server: OpenAIServer, interface: Interface) -> None:
    server.script(Streams([piece("Hel")], then="silence"))
    delivered: list[str] = []
    with pytest.raises(ModelTimeout, match="took too long"):
        ask(interface, compatible(server, timeout=0.2), delivered=delivered)
    assert delivered == ["Hel"]


def test_a_server_that_does_not_run_is_said_to_be_out_of_reach(interface: Interface) -> None:
    with OpenAIServer() as ended:
        pass
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        ask(interface, compatible(ended))


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_to_send_the_usage_is_asked_without_it(
    server: OpenAIServer, interface: Interface, status: int
) -> None:
    server.script(Fails(status, {"detail": "stream_options: extra fields not permitted"}))
    model = compatible(server)
    assert ask(interface, model)[0] == ["Hello,", " Bob!"]
    assert ask(interface, model)[0] == ["Hello,", " Bob!"]
    assert ["stream_options" in body for body in server.bodies] == [True, False, False]


# Connections -------------------------------------------------------------------------------------


def test_closing_the_generator_ends_the_request(server: OpenAIServer, interface: Interface) -> None:
    server.script(Streams([piece("Hel")], then="silence"))
    model = compatible(server)

    async def leave() -> None:
        async with aclosing(model.stream([Message.user("Hi")])) as reply:
            assert await anext(reply) == "Hel"
        assert await asyncio.to_thread(server.client_left.wait, 10)

    if interface == "async":
        asyncio.run(leave())
    else:
        with closing(model.stream_sync([Message.user("Hi")])) as reply:
            assert next(reply) == "Hel"
        assert server.client_left.wait(10)
    asyncio.run(model.close())


def test_cancelling_the_task_ends_the_request(server: OpenAIServer) -> None:
    server.script(Streams([], then="silence"))
    model = compatible(server)

    async def cancel() -> None:
        call = asyncio.ensure_future(anext(model.stream([Message.user("Hi")])))
        assert await asyncio.to_thread(server.asked.wait, 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await asyncio.to_thread(server.client_left.wait, 10)

    asyncio.run(cancel())


def test_connections_are_used_again_and_each_event_loop_has_its_own(server: OpenAIServer) -> None:
    model = compatible(server)

    async def ask_twice() -> None:
        for _ in range(2):
            async with aclosing(model.stream([Message.user("Hi")])) as reply:
                assert [item async for item in reply][:2] == ["Hello,", " Bob!"]

    for _ in range(2):
        asyncio.run(ask_twice())
    assert len(server.bodies) == 4
    assert len(server.connections) == 2


def test_threads_may_share_a_model(server: OpenAIServer) -> None:
    model = compatible(server)
    replies: list[list[Any]] = []

    def ask_sync() -> None:
        with closing(model.stream_sync([Message.user("Hi")])) as reply:
            replies.append(list(reply)[:2])

    threads = [threading.Thread(target=ask_sync) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert replies == [["Hello,", " Bob!"]] * 8
    asyncio.run(model.close())


def test_no_message_and_no_key_is_logged(
    server: OpenAIServer, interface: Interface, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.script(Fails(503, {"error": {"message": SECRET}}), HELLO)
    ask(interface, compatible(server, api_key=KEY, patience=20))
    assert not any(text in caplog.text for text in (SECRET, KEY, QUESTION))
