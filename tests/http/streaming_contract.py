"""What a server answers that streams: ``POST /chat/stream``."""

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from hypothesis import given

from tests.http.bad_input import (
    BAD_CHAT,
    BAD_CONTENT_TYPES,
    BODIES,
    BODY_BYTES,
    MALFORMED,
    any_input,
    body_with,
    table,
)
from tests.http.client import (
    JSON,
    MARKER,
    Fields,
    body_of,
    connected,
    events,
    events_of,
    eventually,
    ids,
    listed,
    refused,
    said,
    shown,
    someone,
    streamed,
    survived,
    talk,
    whole,
)

FRAMES = table(
    {
        "blank lines": "one\n\ntwo\r\n\r\nthree\r\rfour",
        "other ends of lines": "a\u2028b\x85c\x0bd",
        "an event": "event: done\ndata: {}\n\n",
        "long characters": "🧠👩‍👩‍👧",
    }
)


class StreamingContract:
    """Besides ``url`` it needs ``slow_url``: such a server whose model pauses before every piece
    for a fifth of a second or so, that a client can go away in the middle.
    """

    @pytest.fixture
    def slow(self, slow_url: str) -> Iterator[httpx.Client]:
        with connected(slow_url) as client:
            yield client

    def test_a_stream_starts_comes_in_pieces_and_is_done(self, client: httpx.Client) -> None:
        user = someone()
        with streamed(client, message="Hi, I am Bob", user_id=user) as response:
            assert response.headers["Content-Type"].startswith("text/event-stream")
            assert response.headers["Cache-Control"] == "no-cache"
            # Else nginx would keep the pieces back until it has a buffer full.
            assert response.headers["X-Accel-Buffering"] == "no"
            place, text = whole(events(response))
        assert place is not None
        conversation = shown(client, place)
        assert conversation["user_id"] == user
        assert talk(conversation) == [("user", "Hi, I am Bob"), ("assistant", text)]

    def test_a_streamed_turn_says_what_a_whole_one_says(self, client: httpx.Client) -> None:
        for message in ("Hi, I am Bob", "What is my name?"):
            with streamed(client, message=message) as response:
                place, text = whole(events(response))
            assert place is None
            assert text == said(client, message)["response"]

    def test_a_stream_goes_on_with_a_conversation(self, client: httpx.Client) -> None:
        user = someone()
        place = said(client, "Hi, I am Bob", user_id=user)["conversation_id"]
        fields = {"message": "What is my name?", "user_id": user, "conversation_id": place}
        with streamed(client, **fields) as response:
            same, text = whole(events(response))
        assert same == place
        assert "Bob" in text
        assert talk(shown(client, place))[2:] == [("user", fields["message"]), ("assistant", text)]

    def test_a_stream_starts_a_conversation_under_the_id_it_was_given(
        self, client: httpx.Client
    ) -> None:
        user, given = someone(), f"a/b #{uuid4()} 🧠"
        with streamed(client, message="Hi", user_id=user, conversation_id=given) as response:
            place, _ = whole(events(response))
        assert place == given
        assert ids(listed(client, user)) == [given]

    @pytest.mark.parametrize("message", FRAMES)
    def test_a_reply_that_repeats_what_looks_like_a_frame_is_framed_well(
        self, client: httpx.Client, message: str
    ) -> None:
        user = someone()
        place = said(client, message, user_id=user)["conversation_id"]
        fields = {"message": "What did I tell you first?", "user_id": user}
        with streamed(client, **fields, conversation_id=place) as response:
            _, text = whole(events(response))
        assert talk(shown(client, place))[-1] == ("assistant", text)

    def test_a_stream_without_history_stores_nothing(self, client: httpx.Client) -> None:
        user = someone()
        with streamed(client, message="Hi", user_id=user, save_history=False) as response:
            place, _ = whole(events(response))
        assert place is None
        assert ids(listed(client, user)) == []

    def test_a_stream_without_a_user_has_an_anonymous_owner(self, client: httpx.Client) -> None:
        with streamed(client, message="Hi", save_history=True) as response:
            place, _ = whole(events(response))
        assert place is not None
        assert shown(client, place)["user_id"].startswith("anonymous-")

    def test_a_stream_that_is_asked_for_again_says_the_same(self, client: httpx.Client) -> None:
        headers = {"Idempotency-Key": str(uuid4())}
        body = {"message": "Hi, I am Bob", "user_id": someone()}
        told = []
        for _ in range(2):
            with client.stream("POST", "/chat/stream", json=body, headers=headers) as response:
                told.append(whole(events(response)))
        assert told[0] == told[1]

    # One turn at a time -------------------------------------------------------------------------

    @pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
    def test_while_a_reply_is_written_another_turn_is_refused(
        self, slow: httpx.Client, path: str
    ) -> None:
        user = someone()
        with streamed(slow, message="Hi, I am Bob", user_id=user) as response:
            stream = events(response)
            place = next(stream)[1]["conversation_id"]
            body = {"message": MARKER, "user_id": user, "conversation_id": place}
            answer = slow.post(path, json=body)
            assert refused(answer, 409)["code"] == "turn_in_progress"
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            *_, (last, _) = stream
            assert last == "done"
        assert [role for role, _ in talk(shown(slow, place))] == ["user", "assistant"]

    # Refused before the stream starts -----------------------------------------------------------

    @pytest.mark.parametrize("body", MALFORMED)
    def test_a_malformed_body_starts_no_stream(self, client: httpx.Client, body: bytes) -> None:
        refused_as_a_chat(client, body)

    @pytest.mark.parametrize("fields", BAD_CHAT)
    def test_a_bad_field_starts_no_stream(self, client: httpx.Client, fields: Fields) -> None:
        user = someone()
        refused_as_a_chat(client, body_with({"message": MARKER, "user_id": user} | fields))
        assert ids(listed(client, user)) == []

    @pytest.mark.parametrize("headers", BAD_CONTENT_TYPES)
    def test_what_is_not_called_json_starts_no_stream(
        self, client: httpx.Client, headers: dict[str, str]
    ) -> None:
        refused_as_a_chat(client, body_with({"message": MARKER}), headers)

    def test_a_body_over_256_kib_starts_no_stream(self, client: httpx.Client) -> None:
        refused_as_a_chat(client, body_with({"message": MARKER}) + b" " * BODY_BYTES)

    def test_an_unknown_conversation_without_a_user_starts_no_stream(
        self, client: httpx.Client
    ) -> None:
        body = {"message": MARKER, "conversation_id": str(uuid4())}
        refused_as_a_chat(client, body_with(body))

    def test_somebody_elses_conversation_starts_no_stream(self, client: httpx.Client) -> None:
        place = said(client, "Hi", user_id=someone())["conversation_id"]
        before = shown(client, place)
        body = {"message": MARKER, "user_id": someone(), "conversation_id": place}
        refused(client.post("/chat/stream", json=body), 404)
        assert shown(client, place) == before

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    def test_a_stream_is_asked_for_by_post(self, client: httpx.Client, method: str) -> None:
        refused(client.request(method, "/chat/stream"), 405)

    @given(body=BODIES)
    @any_input
    def test_no_body_breaks_a_stream(self, client: httpx.Client, body: bytes) -> None:
        response = client.post("/chat/stream", content=body, headers=JSON)
        if response.status_code == 200:
            whole(events_of(response.text))
        else:
            survived(response)

    # Clients that go away -----------------------------------------------------------------------

    def test_a_client_that_goes_away_leaves_what_was_said_so_far(
        self, client: httpx.Client, slow: httpx.Client
    ) -> None:
        message = "Hi, I am Bob and I would like to hear all that you can do"
        reply = said(client, message, user_id=someone())["response"]
        user = someone()
        with streamed(slow, message=message, user_id=user) as response:
            stream = events(response)
            place = next(stream)[1]["conversation_id"]
            heard = next(stream)[1]["text"]
            assert heard != reply, "the reply came in one piece: nothing to interrupt"

        def kept() -> Fields | None:
            messages: list[Fields] = shown(slow, place)["messages"]
            return messages[1] if len(messages) > 1 else None

        stopped = eventually(kept)
        assert stopped["role"] == "assistant"
        assert stopped["stop_reason"] == "stopped"
        assert stopped["content"].startswith(heard)
        assert reply.startswith(stopped["content"])
        assert stopped["content"] != reply, "it came to its end: nobody stopped it"

        answer = said(slow, "What is my name?", user_id=user, conversation_id=place)
        assert "Bob" in answer["response"]
        roles = [role for role, _ in talk(shown(slow, place))]
        assert roles == ["user", "assistant", "user", "assistant"]

    def test_a_client_that_goes_away_before_the_first_piece_locks_nothing(
        self, slow: httpx.Client
    ) -> None:
        user = someone()
        with streamed(slow, message="Hi, I am Bob", user_id=user) as response:
            place = next(events(response))[1]["conversation_id"]

        def answer() -> Fields | None:
            fields = {"message": "What is my name?", "user_id": user, "conversation_id": place}
            response = slow.post("/chat", json=fields)
            # Until the server has noticed, the first turn may still be running.
            return body_of(response) if response.status_code != 409 else None

        assert "Bob" in eventually(answer)["response"]
        conversation = talk(shown(slow, place))
        assert conversation[0] == ("user", "Hi, I am Bob")
        assert conversation[-1][0] == "assistant"


def refused_as_a_chat(
    client: httpx.Client, body: bytes, headers: dict[str, str] | None = None
) -> None:
    """Assert that a stream is refused as ``POST /chat`` refuses the same."""
    headers = JSON if headers is None else headers
    stream = client.post("/chat/stream", content=body, headers=headers)
    chat = client.post("/chat", content=body, headers=headers)
    assert refused(stream, 400, 413, 422) == refused(chat, 400, 413, 422)
    assert stream.status_code == chat.status_code
