"""A Bedrock model over a socket; async and sync callers get the same behaviour."""

import asyncio
import logging
import threading
import time
from contextlib import aclosing, closing
from typing import Any

import pytest

from chatledger.errors import (
    ModelError,
    ModelRefused,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
)
from chatledger.messages import Message
from chatledger.models.bedrock import BedrockModel, Guardrail
from chatledger.models.protocol import Finished, OpenedModel, Usage
from chatledger.testing.bedrock_server import (
    BedrockServer,
    CorruptsFrame,
    DropsConnection,
    EndsEarly,
    Fails,
    FailsMidStream,
    Says,
    Stalls,
    Throttles,
    ToolUse,
)
from tests.models.bedrock_client import MODEL, Transport, ask, model, running, server, transport

__all__ = ["running", "server", "transport"]

SECRET = "my PIN is 1234"
TOOL = {"name": "weather", "description": "Tells the weather."}


def test_a_reply_is_its_pieces_and_then_its_end(
    server: BedrockServer, transport: Transport
) -> None:
    server.script(Says(["Hel", "lo ", "Wörld 😀"]))
    pieces, finished = ask(transport, model(server))
    assert pieces == ["Hel", "lo ", "Wörld 😀"]
    assert finished.stop_reason == "end_turn"
    assert finished.usage is not None
    assert finished.usage.output_tokens == 3
    assert finished.latency_ms is not None
    assert finished.tool_calls == []


@pytest.mark.parametrize("uses_tool", [False, True])
def test_without_streaming_the_same_reply_comes_as_one_piece(
    server: BedrockServer, transport: Transport, uses_tool: bool
) -> None:
    script = Says(["Hello, ", "Bob!"], stop_reason="max_tokens")
    if uses_tool:
        script = Says(["One ", "moment."], uses=[ToolUse("weather", {"place": "Bergen"}, id="1")])
    tools = [TOOL] if uses_tool else []
    replies = []
    for streaming in (True, False):
        server.script(script)
        asked = model(server, tools=tools, streaming=streaming, guardrail=Guardrail("g1", "1"))
        pieces, finished = ask(transport, asked)
        assert streaming or len(pieces) == 1
        replies.append(("".join(pieces), finished.stop_reason, finished.usage, finished.tool_calls))
    assert replies[0] == replies[1]
    assert [request.operation for request in server.requests] == ["ConverseStream", "Converse"]


def test_it_is_a_model_for_async_and_sync_callers(server: BedrockServer) -> None:
    opened: OpenedModel = model(server)
    assert opened.id == f"bedrock:{MODEL}"


@pytest.mark.parametrize(
    "model_id",
    [
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123",
    ],
)
def test_a_model_can_be_named_by_inference_profile_or_arn(
    server: BedrockServer, transport: Transport, model_id: str
) -> None:
    ask(transport, model(server, model_id))
    assert server.requests[0].model_id == model_id


def test_both_transports_send_the_same_request(server: BedrockServer) -> None:
    options: dict[str, Any] = {
        "max_tokens": 50,
        "temperature": 0.5,
        "stop_sequences": ["END"],
        "additional_fields": {"inferenceConfig": {"topK": 20}},
        "tools": [TOOL],
        "tool_choice": "auto",
        "cache": True,
    }
    image: Any = {"type": "image", "base64": "iVBORw0KGgo=", "mime_type": "image/png"}
    call: Any = {"id": "a b", "name": "weather", "args": {"x": [1, 2.5, None]}, "type": "tool_call"}
    messages = [
        Message.user(["Look:", image]),
        Message.assistant(tool_calls=[call]),
        Message.tool("Rain", tool_call_id="a b"),
        Message.user("Ünd?"),
    ]
    ask("async", model(server, **options), messages, system_prompt="Be brief.")
    ask("sync", model(server, **options), messages, system_prompt="Be brief.")
    first, second = server.requests
    assert first.error is None
    assert first.body == second.body
    assert first.body["system"][0] == {"text": "Be brief."}


def test_cached_tokens_are_part_of_the_input_tokens(
    server: BedrockServer, transport: Transport
) -> None:
    first = ask(transport, model(server, cache=True), "Hello", system_prompt="Be brief. " * 1000)[
        1
    ].usage
    second = ask(transport, model(server, cache=True), "Hello", system_prompt="Be brief. " * 1000)[
        1
    ].usage
    assert first is not None
    assert second is not None
    assert first.cache_write_tokens > 2000
    assert second.cached_tokens == first.cache_write_tokens
    assert second.input_tokens == first.input_tokens >= second.cached_tokens
    assert (first + second).cached_tokens == second.cached_tokens


def test_a_growing_conversation_is_read_from_the_cache(
    server: BedrockServer, transport: Transport
) -> None:
    messages = [Message.user("Once upon a time " * 500)]
    usages: list[Usage] = []
    for _ in range(3):
        usage = ask(transport, model(server, cache=True), messages)[1].usage
        assert usage is not None
        usages.append(usage)
        messages += [Message.assistant("Go on. " * 500), Message.user("And then? " * 500)]
    assert [usage.cached_tokens for usage in usages] == [
        0,
        usages[0].input_tokens,
        usages[1].input_tokens,
    ]


@pytest.mark.parametrize(
    "reason", ["max_tokens", "stop_sequence", "guardrail_intervened", "content_filtered"]
)
def test_a_reply_says_why_it_ended(
    server: BedrockServer, transport: Transport, reason: str
) -> None:
    server.script(Says("Hello", stop_reason=reason))
    assert ask(transport, model(server))[1].stop_reason == reason


def test_a_tool_is_called_and_its_result_sent(server: BedrockServer, transport: Transport) -> None:
    uses = [
        ToolUse("weather", {"city": "Kyiv", "days": [1, 2]}),
        ToolUse("weather", {}, id="second"),
    ]
    server.script(Says("I look.", uses=uses), Says("It rains."))
    question = Message.user("How is the weather?")
    pieces, finished = ask(transport, model(server, tools=[TOOL]), [question])
    assert "".join(pieces) == "I look."
    assert finished.stop_reason == "tool_use"
    first, second = finished.tool_calls
    assert first["args"] == {"city": "Kyiv", "days": [1, 2]}
    assert second == {"id": "second", "name": "weather", "args": {}, "type": "tool_call"}
    messages = [
        question,
        Message.assistant("".join(pieces), tool_calls=finished.tool_calls),
        Message.tool("Rain", tool_call_id=str(first["id"])),
        Message.tool("", tool_call_id="second"),
    ]
    assert "".join(ask(transport, model(server, tools=[TOOL]), messages)[0]) == "It rains."


def test_thoughts_are_not_part_of_the_reply(server: BedrockServer, transport: Transport) -> None:
    server.script(Says("Yes.", reasoning="Should I say yes or no?"))
    assert ask(transport, model(server))[0] == ["Yes."]


# Failures ----------------------------------------------------------------------------------------

FAULTS = [
    (Fails("ThrottlingException", SECRET), ModelThrottled),
    (Fails("ServiceQuotaExceededException", SECRET), ModelThrottled),
    (Fails("ServiceUnavailableException", SECRET), ModelUnavailable),
    (Fails("InternalServerException", SECRET), ModelUnavailable),
    (Fails("ModelNotReadyException", SECRET), ModelUnavailable),
    (Fails("ModelErrorException", SECRET), ModelUnavailable),
    (Fails("ModelTimeoutException", SECRET), ModelTimeout),
    (Fails("AccessDeniedException", SECRET), ModelRefused),
    (Fails("ExpiredTokenException", SECRET), ModelRefused),
    (Fails("UnrecognizedClientException", SECRET), ModelRefused),
    (Fails("ValidationException", SECRET), ModelRefused),
    (Fails("ResourceNotFoundException", SECRET), ModelRefused),
    (Fails("RequestEntityTooLargeException", SECRET), ModelRefused),
    (FailsMidStream("internalServerException", message=SECRET, after=0), ModelUnavailable),
    (FailsMidStream("modelStreamErrorException", message=SECRET), ModelUnavailable),
    (FailsMidStream("serviceUnavailableException", message=SECRET), ModelUnavailable),
    (FailsMidStream("throttlingException", message=SECRET), ModelThrottled),
    (FailsMidStream("validationException", message=SECRET), ModelRefused),
    (DropsConnection(), ModelUnavailable),
    (DropsConnection(after=0), ModelUnavailable),
    (DropsConnection(after=2), ModelUnavailable),
    (EndsEarly(after=0), ModelUnavailable),
    (EndsEarly(after=2), ModelUnavailable),
    (Stalls(), ModelTimeout),
    (Stalls(after=0), ModelTimeout),
    (Stalls(after=2), ModelTimeout),
    (CorruptsFrame(part="prelude"), ModelUnavailable),
    (CorruptsFrame(part="message"), ModelUnavailable),
    (Says(uses=[ToolUse("weather", '{"city": "Ky')]), ModelUnavailable),
]


@pytest.mark.parametrize(("fault", "kind"), FAULTS, ids=repr)
def test_each_fault_has_its_error_which_repeats_no_text(
    server: BedrockServer,
    transport: Transport,
    fault: Any,
    kind: type[ModelError],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "chatledger")
    server.script(fault)
    delivered: list[str] = []
    with pytest.raises(ModelError) as raised:
        ask(transport, model(server, timeout=0.3), SECRET, delivered=delivered)
    assert type(raised.value) is kind
    assert raised.value.retryable is (kind is not ModelRefused)
    assert SECRET not in str(raised.value)
    assert "gain" in str(raised.value)
    assert len(delivered) == (getattr(fault, "after", 0) or 0)
    assert not [record for record in caplog.records if record.name.startswith("chatledger")]


@pytest.mark.parametrize(("fault", "kind"), FAULTS[:-1], ids=repr)
def test_each_fault_has_the_same_error_without_streaming(
    server: BedrockServer, transport: Transport, fault: Any, kind: type[ModelError]
) -> None:
    server.script(fault)
    with pytest.raises(ModelError) as raised:
        ask(transport, model(server, timeout=0.3, streaming=False), SECRET)
    assert type(raised.value) is kind
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"model_id": "anthropic.claude-sonnet-4-5-20250929-v1:0"}, "inference profile"),
        ({"model_id": "unheard-of"}, "no unheard-of to call in this region"),
        ({"model_id": "us.anthropic.claude-opus-4-7", "temperature": 0.5}, "ValidationException"),
        ({"max_tokens": 1_000_000}, "ValidationException"),
        (
            {"model_id": "anthropic.claude-3-haiku-20240307-v1:0", "cache": True},
            "AccessDeniedException",
        ),
        ({"stop_sequences": ["a", "b", "c", "d", "e"]}, "ValidationException"),
    ],
)
def test_the_error_for_a_refused_request_says_what_to_change_or_has_the_code(
    server: BedrockServer, transport: Transport, options: dict[str, Any], advice: str
) -> None:
    with pytest.raises(ModelRefused) as raised:
        ask(transport, model(server, **options))
    assert advice in str(raised.value)
    assert len(server.requests) == 1


def test_the_explanation_of_the_service_is_in_the_cause_of_the_error(
    server: BedrockServer, transport: Transport
) -> None:
    server.script(Fails("ValidationException", SECRET))
    with pytest.raises(ModelRefused) as raised:
        ask(transport, model(server))
    assert SECRET in str(raised.value.__cause__)
    server.script(FailsMidStream("validationException", message=SECRET))
    with pytest.raises(ModelRefused) as raised:
        ask(transport, model(server))
    assert SECRET in str(raised.value.__cause__)


def test_the_error_for_a_window_that_is_too_long_says_so(
    server: BedrockServer, transport: Transport
) -> None:
    with pytest.raises(ModelRefused, match="the window may be too long"):
        ask(transport, model(server), "many words " * 200_000)


def test_a_reply_is_complete_after_its_stop_reason_even_if_the_usage_is_lost(
    server: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chatledger.models.bedrock import replies

    def lose_usage(self: object, about: object) -> None:
        raise ModelUnavailable("the connection")

    monkeypatch.setattr(replies.BedrockReplyReader, "_read_metadata", lose_usage)
    server.script(Says("Hello"))
    assert ask(transport, model(server)) == (["Hello"], Finished("end_turn", None, []))


# Retries -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Throttles(),
        Fails("ServiceUnavailableException"),
        DropsConnection(),
        EndsEarly(after=0),
        Stalls(),
        FailsMidStream("throttlingException", after=0),
        CorruptsFrame(after=0),
        Says(uses=[ToolUse("weather", "{")]),
    ],
    ids=repr,
)
def test_a_call_that_fails_before_the_first_piece_is_retried(
    server: BedrockServer, transport: Transport, fault: Any
) -> None:
    server.script(fault, Says("Hello"))
    assert ask(transport, model(server, patience=20, timeout=0.3))[0] == ["Hello"]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "fault",
    [FailsMidStream(after=1), DropsConnection(after=1), EndsEarly(after=1), CorruptsFrame(after=1)],
)
def test_a_call_that_fails_after_the_first_piece_is_not_retried(
    server: BedrockServer, transport: Transport, fault: Any
) -> None:
    server.script(fault, Says("Hello"))
    delivered: list[str] = []
    with pytest.raises(ModelUnavailable):
        ask(transport, model(server, patience=20), delivered=delivered)
    assert delivered == ["One"]
    assert len(server.requests) == 1


def test_a_refused_call_is_not_retried(server: BedrockServer, transport: Transport) -> None:
    server.script(Fails("AccessDeniedException"), Says("Hello"))
    with pytest.raises(ModelRefused):
        ask(transport, model(server, patience=20))
    assert len(server.requests) == 1


def test_retries_end_when_patience_is_over(server: BedrockServer, transport: Transport) -> None:
    server.script(Says("Hello"), Throttles(times=50))
    ask(transport, model(server))  # the first call of all reads botocore's data for a while
    began = time.monotonic()
    with pytest.raises(ModelThrottled):
        ask(transport, model(server, patience=0.5))
    assert time.monotonic() - began < 5
    assert len(server.requests) > 2


# Abandoning a reply ------------------------------------------------------------------------------


def test_closing_a_reply_ends_the_call(server: BedrockServer) -> None:
    server.script(Says("One two three", pause=60))

    async def close_early() -> str:
        asked = model(server)
        try:
            async with aclosing(asked.stream([Message.user("Count")])) as reply:
                first = await anext(reply)
            await asyncio.to_thread(server.wait_for_abandoned_request)
            return str(first)
        finally:
            await asked.close()

    assert asyncio.run(close_early()) == "One"


def test_closing_a_sync_reply_ends_the_call(server: BedrockServer) -> None:
    server.script(Says("One two three", pause=60))
    asked = model(server)
    with closing(asked.stream_sync([Message.user("Count")])) as reply:
        assert next(reply) == "One"
    server.wait_for_abandoned_request()


def test_cancelling_a_reply_ends_the_call(server: BedrockServer) -> None:
    server.script(Stalls(after=1))

    async def cancel() -> None:
        asked = model(server)
        started = asyncio.Event()

        async def listen() -> None:
            async with aclosing(asked.stream([Message.user("Count")])) as reply:
                async for _ in reply:
                    started.set()

        listening = asyncio.create_task(listen())
        await started.wait()
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening
        await asyncio.to_thread(server.wait_for_abandoned_request)
        await asked.close()

    asyncio.run(cancel())


def test_the_connection_of_a_complete_reply_is_used_again(server: BedrockServer) -> None:
    async def ask_twice() -> int:
        asked = model(server)
        for _ in range(3):
            async with aclosing(asked.stream([Message.user("Hello")])) as reply:
                assert [piece async for piece in reply]
        transport = asked._async_transport()
        [connecting] = transport._client._connections.values()
        connector = connecting.result()._session.connector
        assert connector is not None
        count = sum(len(free) for free in connector._conns.values())
        await asked.close()
        await asked.close()
        return count

    assert asyncio.run(ask_twice()) == 1


# Concurrency and event loops ---------------------------------------------------------------------

CONCURRENT = 300


def test_three_hundred_concurrent_replies_need_no_threads(server: BedrockServer) -> None:
    async def read_reply(asked: BedrockModel, pieces: asyncio.Semaphore) -> None:
        async with aclosing(asked.stream([Message.user("Hello")])) as reply:
            async for _ in reply:
                pieces.release()

    async def count_new_threads() -> int:
        asked = model(server, timeout=120, connect_timeout=60)
        pieces = asyncio.Semaphore(0)
        server.script(Says(["One"]), *[Says(["One", " two"], pause=600)] * CONCURRENT)
        await read_reply(asked, pieces)
        before = threading.active_count()
        tasks = [asyncio.create_task(read_reply(asked, pieces)) for _ in range(CONCURRENT)]
        for _ in range(2 + CONCURRENT):  # piece and end of the first, one piece of each other
            await pieces.acquire()
        grown = threading.active_count() - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asked.close()
        return grown

    assert asyncio.run(count_new_threads()) == 0
    for request in server.requests[1:]:
        assert request.abandoned.wait(10)


def test_a_model_serves_one_event_loop_after_another(server: BedrockServer) -> None:
    asked = model(server)

    async def hello() -> int:
        async with aclosing(asked.stream([Message.user("Hello")])) as reply:
            return len([piece async for piece in reply])

    assert asyncio.run(hello()) > 1
    assert asyncio.run(hello()) > 1
    asyncio.run(asked.close())


def test_a_model_serves_the_event_loops_of_many_threads(server: BedrockServer) -> None:
    asked = model(server)
    piece_counts: list[int] = []
    all_finished = threading.Barrier(4)

    async def hello() -> None:
        for _ in range(5):
            async with aclosing(asked.stream([Message.user("Hello")])) as reply:
                piece_counts.append(len([piece async for piece in reply]))
        await asyncio.to_thread(all_finished.wait)  # keeps its loop open while others use the model

    threads = [threading.Thread(target=lambda: asyncio.run(hello())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(piece_counts) == 20
    asyncio.run(asked.close())


def test_closing_a_model_closes_its_connection_in_another_running_loop(
    server: BedrockServer,
) -> None:
    asked = model(server)
    replied, closed = threading.Event(), threading.Event()

    async def hello() -> None:
        async with aclosing(asked.stream([Message.user("Hello")])) as reply:
            assert [piece async for piece in reply]
        replied.set()
        await asyncio.to_thread(closed.wait)

    thread = threading.Thread(target=lambda: asyncio.run(hello()))
    thread.start()
    replied.wait()
    asyncio.run(asked.close())
    closed.set()
    thread.join()


def test_threads_share_a_model(server: BedrockServer) -> None:
    asked = model(server)
    reply_lengths: list[int] = []

    def hello() -> None:
        reply_lengths.append(len(list(asked.stream_sync([Message.user("Hello")]))))

    threads = [threading.Thread(target=hello) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reply_lengths) == 8
    asyncio.run(asked.close())
