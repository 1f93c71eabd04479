"""A model of Bedrock's over a socket, async and sync, which behave alike."""

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
    BreaksOff,
    Corrupts,
    EndsEarly,
    Fails,
    FailsMidway,
    FallsSilent,
    Says,
    Throttles,
    Use,
)
from tests.models.bedrock_client import MODEL, Transport, ask, model, running, server, transport

__all__ = ["running", "server", "transport"]

SECRET = "my PIN is 1234"
TOOL = {"name": "weather", "description": "Tells the weather."}


def test_a_reply_comes_in_pieces_and_then_its_end(
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
def test_a_model_that_does_not_stream_says_the_same_in_one_piece(
    server: BedrockServer, transport: Transport, uses_tool: bool
) -> None:
    answer = Says(["Hello, ", "Bob!"], stop_reason="max_tokens")
    if uses_tool:
        answer = Says(["One ", "moment."], uses=[Use("weather", {"place": "Bergen"}, id="1")])
    tools = [TOOL] if uses_tool else []
    told = []
    for streaming in (True, False):
        server.script(answer)
        one = model(server, tools=tools, streaming=streaming, guardrail=Guardrail("g1", "1"))
        pieces, finished = ask(transport, one)
        assert streaming or len(pieces) == 1
        told.append(("".join(pieces), finished.stop_reason, finished.usage, finished.tool_calls))
    assert told[0] == told[1]
    assert [request.operation for request in server.requests] == ["ConverseStream", "Converse"]


def test_it_is_a_model_in_both_forms(server: BedrockServer) -> None:
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
def test_profiles_and_arns_name_a_model_too(
    server: BedrockServer, transport: Transport, model_id: str
) -> None:
    ask(transport, model(server, model_id))
    assert server.requests[0].model_id == model_id


def test_the_same_is_asked_over_either_transport(server: BedrockServer) -> None:
    made: dict[str, Any] = {
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
    ask("async", model(server, **made), messages, system_prompt="Be brief.")
    ask("sync", model(server, **made), messages, system_prompt="Be brief.")
    first, second = server.requests
    assert first.error is None
    assert first.body == second.body
    assert first.body["system"][0] == {"text": "Be brief."}


def test_cached_tokens_are_part_of_those_that_were_given(
    server: BedrockServer, transport: Transport
) -> None:
    once = ask(transport, model(server, cache=True), "Hello", system_prompt="Be brief. " * 1000)[
        1
    ].usage
    then = ask(transport, model(server, cache=True), "Hello", system_prompt="Be brief. " * 1000)[
        1
    ].usage
    assert once is not None
    assert then is not None
    assert once.cache_write_tokens > 2000
    assert then.cached_tokens == once.cache_write_tokens
    assert then.input_tokens == once.input_tokens >= then.cached_tokens
    assert (once + then).cached_tokens == then.cached_tokens


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


def test_tools_are_called_and_their_results_are_given(
    server: BedrockServer, transport: Transport
) -> None:
    uses = [Use("weather", {"city": "Kyiv", "days": [1, 2]}), Use("weather", {}, id="second")]
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


def test_thoughts_are_no_part_of_the_reply(server: BedrockServer, transport: Transport) -> None:
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
    (FailsMidway("internalServerException", message=SECRET, after=0), ModelUnavailable),
    (FailsMidway("modelStreamErrorException", message=SECRET), ModelUnavailable),
    (FailsMidway("serviceUnavailableException", message=SECRET), ModelUnavailable),
    (FailsMidway("throttlingException", message=SECRET), ModelThrottled),
    (FailsMidway("validationException", message=SECRET), ModelRefused),
    (BreaksOff(), ModelUnavailable),
    (BreaksOff(after=0), ModelUnavailable),
    (BreaksOff(after=2), ModelUnavailable),
    (EndsEarly(after=0), ModelUnavailable),
    (EndsEarly(after=2), ModelUnavailable),
    (FallsSilent(), ModelTimeout),
    (FallsSilent(after=0), ModelTimeout),
    (FallsSilent(after=2), ModelTimeout),
    (Corrupts(part="prelude"), ModelUnavailable),
    (Corrupts(part="message"), ModelUnavailable),
    (Says(uses=[Use("weather", '{"city": "Ky')]), ModelUnavailable),
]


@pytest.mark.parametrize(("fault", "kind"), FAULTS, ids=repr)
def test_each_fault_has_its_error_which_repeats_nothing(
    server: BedrockServer,
    transport: Transport,
    fault: Any,
    kind: type[ModelError],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "chatledger")
    server.script(fault)
    seen: list[str] = []
    with pytest.raises(ModelError) as raised:
        ask(transport, model(server, timeout=0.3), SECRET, seen=seen)
    assert type(raised.value) is kind
    assert raised.value.retryable is (kind is not ModelRefused)
    assert SECRET not in str(raised.value)
    assert "gain" in str(raised.value)
    assert len(seen) == (getattr(fault, "after", 0) or 0)
    assert not [record for record in caplog.records if record.name.startswith("chatledger")]


@pytest.mark.parametrize(("fault", "kind"), FAULTS[:-1], ids=repr)
def test_each_fault_has_the_same_error_where_the_reply_does_not_stream(
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
        ({"model_id": "unheard-of"}, "no model with the id unheard-of"),
        ({"model_id": "us.anthropic.claude-opus-4-7", "temperature": 0.5}, "temperature"),
        (
            {
                "model_id": "us.anthropic.claude-haiku-4-5-20251001-v1:0",
                "temperature": 0.5,
                "top_p": 0.5,
            },
            "temperature",
        ),
        ({"max_tokens": 1_000_000}, "max_tokens"),
        ({"model_id": "anthropic.claude-3-haiku-20240307-v1:0", "cache": True}, "cache=False"),
        ({"stop_sequences": ["a", "b", "c", "d", "e"]}, "stop sequences"),
    ],
)
def test_what_bedrock_refuses_says_what_to_change(
    server: BedrockServer, transport: Transport, options: dict[str, Any], advice: str
) -> None:
    with pytest.raises(ModelRefused) as raised:
        ask(transport, model(server, **options))
    assert advice in str(raised.value)
    assert len(server.requests) == 1


def test_a_window_that_is_too_long_is_told_as_that(
    server: BedrockServer, transport: Transport
) -> None:
    with pytest.raises(ModelRefused, match="use a smaller window"):
        ask(transport, model(server), "many words " * 200_000)


def test_after_the_end_was_told_the_reply_is_whole_whatever_happens(
    server: BedrockServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Usage comes behind the end; that it is lost does not make a reply worthless."""
    from chatledger.models.bedrock import replies

    def lose(self: object, about: object) -> None:
        raise ModelUnavailable("the connection")

    monkeypatch.setattr(replies.Reply, "_measured", lose)
    server.script(Says("Hello"))
    assert ask(transport, model(server)) == (["Hello"], Finished("end_turn", None, []))


# Further tries -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Throttles(),
        Fails("ServiceUnavailableException"),
        BreaksOff(),
        EndsEarly(after=0),
        FallsSilent(),
        FailsMidway("throttlingException", after=0),
        Corrupts(after=0),
        Says(uses=[Use("weather", "{")]),
    ],
    ids=repr,
)
def test_what_fails_before_the_first_piece_is_tried_again(
    server: BedrockServer, transport: Transport, fault: Any
) -> None:
    server.script(fault, Says("Hello"))
    assert ask(transport, model(server, patience=20, timeout=0.3))[0] == ["Hello"]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "fault", [FailsMidway(after=1), BreaksOff(after=1), EndsEarly(after=1), Corrupts(after=1)]
)
def test_what_fails_behind_the_first_piece_is_not_tried_again(
    server: BedrockServer, transport: Transport, fault: Any
) -> None:
    server.script(fault, Says("Hello"))
    seen: list[str] = []
    with pytest.raises(ModelUnavailable):
        ask(transport, model(server, patience=20), seen=seen)
    assert seen == ["One"]
    assert len(server.requests) == 1


def test_what_is_refused_is_not_tried_again(server: BedrockServer, transport: Transport) -> None:
    server.script(Fails("AccessDeniedException"), Says("Hello"))
    with pytest.raises(ModelRefused):
        ask(transport, model(server, patience=20))
    assert len(server.requests) == 1


def test_patience_has_an_end(server: BedrockServer, transport: Transport) -> None:
    server.script(Throttles(times=50))
    began = time.monotonic()
    with pytest.raises(ModelThrottled):
        ask(transport, model(server, patience=0.5))
    assert time.monotonic() - began < 5
    assert len(server.requests) > 1


# Leaving a reply ---------------------------------------------------------------------------------


def test_a_reply_that_is_left_ends_the_call(server: BedrockServer) -> None:
    server.script(Says("One two three", pause=60))

    async def leave() -> str:
        asked = model(server)
        try:
            async with aclosing(asked.stream([Message.user("Count")])) as reply:
                first = await anext(reply)
            await asyncio.to_thread(server.wait_abandoned)
            return str(first)
        finally:
            await asked.close()

    assert asyncio.run(leave()) == "One"


def test_a_reply_that_is_left_ends_the_call_without_a_loop_too(server: BedrockServer) -> None:
    server.script(Says("One two three", pause=60))
    asked = model(server)
    with closing(asked.stream_sync([Message.user("Count")])) as reply:
        assert next(reply) == "One"
    server.wait_abandoned()


def test_a_cancelled_reply_ends_the_call(server: BedrockServer) -> None:
    server.script(FallsSilent(after=1))

    async def cancel() -> None:
        asked = model(server)
        began = asyncio.Event()

        async def listen() -> None:
            async with aclosing(asked.stream([Message.user("Count")])) as reply:
                async for _ in reply:
                    began.set()

        listening = asyncio.create_task(listen())
        await began.wait()
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening
        await asyncio.to_thread(server.wait_abandoned)
        await asked.close()

    asyncio.run(cancel())


def test_a_whole_reply_leaves_its_connection_for_the_next(server: BedrockServer) -> None:
    async def ask_twice() -> int:
        asked = model(server)
        for _ in range(3):
            async with aclosing(asked.stream([Message.user("Hello")])) as reply:
                assert [piece async for piece in reply]
        transport = asked._async_transport()
        [connecting] = transport._connections.values()
        connector = connecting.result().http.connector
        assert connector is not None
        count = sum(len(free) for free in connector._conns.values())
        await asked.close()
        await asked.close()
        return count

    assert asyncio.run(ask_twice()) == 1


# Many at once, and many loops --------------------------------------------------------------------

AT_ONCE = 300


def test_three_hundred_replies_come_at_once_and_take_no_threads(server: BedrockServer) -> None:
    async def one(asked: BedrockModel, begun: asyncio.Semaphore) -> None:
        async with aclosing(asked.stream([Message.user("Hello")])) as reply:
            async for _ in reply:
                begun.release()

    async def all_at_once() -> int:
        asked = model(server, timeout=120, connect_timeout=60)
        begun = asyncio.Semaphore(0)
        server.script(Says(["One"]), *[Says(["One", " two"], pause=600)] * AT_ONCE)
        await one(asked, begun)
        before = threading.active_count()
        asking = [asyncio.create_task(one(asked, begun)) for _ in range(AT_ONCE)]
        for _ in range(2 + AT_ONCE):  # the first one's piece and end, a piece of each other one
            await begun.acquire()
        grown = threading.active_count() - before
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await asked.close()
        return grown

    assert asyncio.run(all_at_once()) == 0
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


def test_a_model_serves_event_loops_of_many_threads(server: BedrockServer) -> None:
    asked = model(server)
    done: list[int] = []
    everyone = threading.Barrier(4)

    async def hello() -> None:
        for _ in range(5):
            async with aclosing(asked.stream([Message.user("Hello")])) as reply:
                done.append(len([piece async for piece in reply]))
        await asyncio.to_thread(everyone.wait)  # its loop is still there when others come

    threads = [threading.Thread(target=lambda: asyncio.run(hello())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 20
    asyncio.run(asked.close())


def test_a_loop_that_runs_elsewhere_is_left_in_order_when_the_model_is_closed(
    server: BedrockServer,
) -> None:
    asked = model(server)
    asked_once, closed = threading.Event(), threading.Event()

    async def hello() -> None:
        async with aclosing(asked.stream([Message.user("Hello")])) as reply:
            assert [piece async for piece in reply]
        asked_once.set()
        await asyncio.to_thread(closed.wait)

    thread = threading.Thread(target=lambda: asyncio.run(hello()))
    thread.start()
    asked_once.wait()
    asyncio.run(asked.close())
    closed.set()
    thread.join()


def test_threads_share_a_model(server: BedrockServer) -> None:
    asked = model(server)
    replies: list[int] = []

    def hello() -> None:
        replies.append(len(list(asked.stream_sync([Message.user("Hello")]))))

    threads = [threading.Thread(target=hello) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(replies) == 8
    asyncio.run(asked.close())
