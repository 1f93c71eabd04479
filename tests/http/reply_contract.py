"""HTTP contract of servers that stream: replies that go on without their readers."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import httpx
import pytest

from tests.http.client import (
    GETS_SHORT_REPLY,
    Fields,
    conversation_path,
    create_conversation,
    expect_error,
    new_user,
    open_client,
    open_stream,
    read_conversation,
    send_message,
    success_body,
    transcript,
    wait_until,
)

MESSAGE = "Hi, I am Bob and I would like to hear all that you can do"


class Heard(NamedTuple):
    """An event with its id."""

    name: str
    data: Fields
    id: str | None


def heard(response: httpx.Response) -> Iterator[Heard]:
    """Yield the events of a stream with their ids."""
    assert response.status_code == 200, response.read().decode()
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield Heard(fields["event"], json.loads(fields["data"]), fields.get("id"))
            fields = {}


def follow(
    client: httpx.Client, conversation_id: str, last_event_id: str | None = None, **query: str
) -> tuple[Fields, str, Heard]:
    """Return the data of ``start``, the text and the last event of the conversation's reply."""
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    path = f"{conversation_path(conversation_id)}/reply"
    with client.stream("GET", path, params=query, headers=headers) as response:
        start, *pieces, last = heard(response)
    assert start.name == "start"
    return start.data, "".join(piece.data["text"] for piece in pieces), last


class ReplyContract:
    """Tests for servers that stream; they need the fixtures of ``StreamingContract``."""

    @pytest.fixture
    def slow(self, slow_url: str) -> Iterator[httpx.Client]:
        with open_client(slow_url) as client:
            yield client

    def test_a_reply_goes_on_when_its_client_leaves(
        self, client: httpx.Client, slow: httpx.Client
    ) -> None:
        reply = send_message(client, MESSAGE, user_id=new_user())["response"]
        user = new_user()
        with open_stream(slow, message=MESSAGE, user_id=user) as response:
            stream = heard(response)
            start = next(stream)
            first = next(stream)
        conversation_id = start.data["conversation_id"]
        assert read_conversation(slow, conversation_id)["replying"] is True

        begun, text, last = follow(slow, conversation_id, user_id=user)
        assert (begun["offset"], begun["reply_id"]) == (0, start.data["reply_id"])
        assert (text, last.name) == (reply, "done")
        begun, rest, last = follow(slow, conversation_id, first.id)
        assert begun["offset"] == len(first.data["text"])
        assert first.data["text"] + rest == reply

        stored = read_conversation(slow, conversation_id)
        assert "replying" not in stored
        assert transcript(stored) == [("user", MESSAGE), ("assistant", reply)]
        assert stored["messages"][1]["id"] == start.data["reply_id"]
        path = f"{conversation_path(conversation_id)}/reply"
        assert slow.get(path, headers={"Last-Event-ID": last.id or ""}).status_code == 204

    def test_50_reloads_lose_and_double_no_word(
        self, client: httpx.Client, slow: httpx.Client, slow_url: str
    ) -> None:
        reply = send_message(client, GETS_SHORT_REPLY, user_id=new_user())["response"]
        with open_stream(slow, message=GETS_SHORT_REPLY, user_id=new_user()) as response:
            conversation_id = next(heard(response)).data["conversation_id"]

        def reload(_: int) -> str:
            with open_client(slow_url) as reader:
                path = f"{conversation_path(conversation_id)}/reply"
                with reader.stream("GET", path) as response:
                    stream = heard(response)
                    assert next(stream).name == "start"
                    first = next(stream)
                begun, rest, last = follow(reader, conversation_id, first.id)
                assert begun["offset"] == len(first.data["text"])
                assert last.name == "done"
                return str(first.data["text"]) + rest

        with ThreadPoolExecutor(10) as threads:
            assert set(threads.map(reload, range(50))) == {reply}

    def test_a_client_without_a_stream_may_leave_too(
        self, client: httpx.Client, slow: httpx.Client
    ) -> None:
        reply = send_message(client, GETS_SHORT_REPLY, user_id=new_user())["response"]
        conversation_id = create_conversation(slow, user_id=new_user())
        fields = {"message": GETS_SHORT_REPLY, "conversation_id": conversation_id}
        with pytest.raises(httpx.ReadTimeout):
            slow.post("/chat", json=fields, timeout=0.5)
        assert follow(slow, conversation_id)[1] == reply

    def test_a_reply_can_be_stopped_by_another_client(self, slow: httpx.Client) -> None:
        user = new_user()
        with open_stream(slow, message=MESSAGE, user_id=user) as response:
            stream = heard(response)
            conversation_id = next(stream).data["conversation_id"]
            first = next(stream)
            path = f"{conversation_path(conversation_id)}/stop"
            expect_error(slow.post(path, json={"user_id": new_user()}), 404)
            assert success_body(slow.post(path, json={"user_id": user})) == {"stopped": True}
            *_, last = stream
        assert (last.name, last.data["stop_reason"]) == ("done", "stopped")
        reply = read_conversation(slow, conversation_id)["messages"][1]
        assert reply["content"].startswith(first.data["text"])
        assert reply["stop_reason"] == "stopped"
        assert success_body(slow.post(path, json={})) == {"stopped": False}

    def test_a_stop_repeated_with_its_key_stops_no_other_reply(self, slow: httpx.Client) -> None:
        user, headers = new_user(), {"Idempotency-Key": "key 1"}
        with open_stream(slow, message=MESSAGE, user_id=user) as response:
            stream = heard(response)
            conversation_id = next(stream).data["conversation_id"]
            path = f"{conversation_path(conversation_id)}/stop"
            next(stream)
            assert success_body(slow.post(path, json={}, headers=headers)) == {"stopped": True}
            assert [*stream][-1].data["stop_reason"] == "stopped"
        fields = {"message": MESSAGE, "user_id": user, "conversation_id": conversation_id}
        with open_stream(slow, **fields) as response:
            stream = heard(response)
            next(stream)
            assert success_body(slow.post(path, json={}, headers=headers)) == {"stopped": True}
            assert [*stream][-1].data["stop_reason"] == "end_turn"

    def test_a_reply_that_ends_with_its_client_is_stored_before_others_hear_of_its_end(
        self, slow: httpx.Client, slow_url: str
    ) -> None:
        fields = {"message": MESSAGE, "user_id": new_user(), "on_disconnect": "stop"}
        with open_client(slow_url) as other, open_stream(slow, **fields) as response:
            own_stream = heard(response)
            conversation_id = next(own_stream).data["conversation_id"]
            path = f"{conversation_path(conversation_id)}/reply"
            with other.stream("GET", path) as follower:
                stream = heard(follower)
                assert next(stream).name == "start"
                first = next(stream)
                response.close()
                *more, last = stream
            [_, reply] = read_conversation(other, conversation_id)["messages"]
        assert (last.name, last.data["stop_reason"]) == ("done", reply["stop_reason"])
        assert reply["stop_reason"] == "stopped"
        assert "".join(piece.data["text"] for piece in (first, *more)) == reply["content"]

    def test_a_conversation_without_a_reply_says_so(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = create_conversation(client, user_id=user)
        path = f"{conversation_path(conversation_id)}/reply"
        assert expect_error(client.get(path), 404)["code"] == "no_reply"
        other = client.get(path, params={"user_id": new_user()})
        assert expect_error(other, 404)["code"] == "not_found"

    def test_an_unknown_event_id_gets_the_reply_from_its_beginning(
        self, client: httpx.Client
    ) -> None:
        answer = send_message(client, "Hi", user_id=new_user())
        [_, reply] = read_conversation(client, answer["conversation_id"])["messages"]
        beyond = f"{reply['id']}:{len(answer['response']) + 1}"
        for unknown in ("", ":", "x:3", "nonsense", beyond):
            begun, text, last = follow(client, answer["conversation_id"], unknown)
            assert (begun["offset"], text, last.name) == (0, answer["response"], "done")

    def test_an_event_id_beyond_the_reply_so_far_gets_it_from_its_beginning(
        self, client: httpx.Client, slow: httpx.Client
    ) -> None:
        reply = send_message(client, GETS_SHORT_REPLY, user_id=new_user())["response"]
        with open_stream(slow, message=GETS_SHORT_REPLY, user_id=new_user()) as response:
            start = next(heard(response)).data
        begun, text, last = follow(slow, start["conversation_id"], f"{start['reply_id']}:9999")
        assert (begun["offset"], text, last.name) == (0, reply, "done")

    def test_a_head_request_does_not_wait_for_the_end_of_the_reply(
        self, slow: httpx.Client
    ) -> None:
        with open_stream(slow, message=MESSAGE, user_id=new_user()) as response:
            conversation_id = next(heard(response)).data["conversation_id"]
        head = slow.head(f"{conversation_path(conversation_id)}/reply")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Type"].startswith("text/event-stream")
        # On the same connection: the client would wait for the end of the response.
        assert read_conversation(slow, conversation_id)["replying"] is True

    def test_a_message_is_edited_and_the_former_branch_stays(self, client: httpx.Client) -> None:
        user = new_user()
        answer = send_message(client, "Hi, I am Bob", user_id=user)
        conversation_id = answer["conversation_id"]
        before = transcript(read_conversation(client, conversation_id))
        seq = read_conversation(client, conversation_id)["messages"][0]["seq"]
        path = f"{conversation_path(conversation_id)}/messages/{seq}"
        fields = {"message": "Hi, I am Ann", "user_id": user}
        headers = {"Accept": "text/event-stream"}
        with client.stream("PUT", path, json=fields, headers=headers) as response:
            start, *_, last = heard(response)
        assert last.name == "done"
        branch_id = start.data["branch_id"]
        assert transcript(read_conversation(client, branch_id)) == before
        question, reply = read_conversation(client, conversation_id)["messages"]
        assert (question["content"], question["branch_id"]) == ("Hi, I am Ann", branch_id)
        assert "Ann" in reply["content"]

        path = f"{conversation_path(conversation_id)}/messages/{question['seq']}"
        edited = success_body(client.put(path, json=fields | {"keep_branch": False}))
        assert edited.keys() == {"response", "conversation_id"}
        missing = expect_error(client.put(f"{path}9", json=fields), 404)
        assert missing["error"] == "There is no such message; read the conversation again."
        expect_error(client.put(f"{path}x", json=fields), 422)
        expect_error(client.put(path, json=fields | {"user_id": new_user()}), 404)

    def test_an_id_may_end_like_the_path_of_a_part(self, client: httpx.Client) -> None:
        for part in ("reply", "stop", "fork", "messages/1", "regenerate"):
            id, user = f"{new_user()}/{part}", new_user()
            send_message(client, "Hi", user_id=user, conversation_id=id)
            assert read_conversation(client, id)["conversation_id"] == id
            assert follow(client, id)[2].name == "done"

    def test_the_place_of_a_turn_whose_client_left_is_free_when_it_ends(
        self, slow: httpx.Client
    ) -> None:
        conversation_id = create_conversation(slow, user_id=new_user())
        with open_stream(
            slow, message=GETS_SHORT_REPLY, conversation_id=conversation_id
        ) as response:
            next(heard(response))

        def answer() -> bool | None:
            fields = {"message": GETS_SHORT_REPLY, "conversation_id": conversation_id}
            return slow.post("/chat", json=fields).status_code == 200 or None

        assert wait_until(answer)
