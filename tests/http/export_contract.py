"""HTTP contract of every server: conversations are exported as files, and imported from them."""

import json
from urllib.parse import unquote, urljoin

import httpx
import pytest

from tests.http.client import (
    JSON,
    MARKER,
    Fields,
    conversation_ids,
    conversation_path,
    create_conversation,
    expect_error,
    list_conversations,
    new_user,
    read_conversation,
    send_message,
    success_body,
    transcript,
)

IMPORT = "/conversations/import"
TIME = "2026-12-01T09:30:00.125+00:00"
CALL = {"name": "weather", "args": {"city": "Bergen"}, "id": "call-1"}
MESSAGES: list[Fields] = [
    {"role": "user", "content": "What is the weather in Bergen?", "metadata": {"mood": ["dry"]}},
    {
        "role": "assistant",
        "content": [{"type": "text", "text": "I look it up."}],
        "tool_calls": [CALL],
        "model": "nova",
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 7, "output_tokens": 2},
        "latency_ms": 80,
    },
    {
        "role": "tool",
        "content": "Rain 🌧",
        "tool_call_id": "call-1",
        "name": "weather",
        "status": "error",
    },
    {"role": "assistant", "content": "It rains.", "model": "nova", "stop_reason": "end_turn"},
]
FILE: Fields = {
    "format": "chatledger-conversation",
    "version": 1,
    "title": "Weather",
    "metadata": {"pinned": True},
    "created_at": TIME,
    "exported_at": TIME,
    "messages": [
        message | {"created_at": TIME, "id": f"message-{n}", "seq": n}
        for n, message in enumerate(MESSAGES, 1)
    ],
}


def import_file(client: httpx.Client, file: Fields, user: str, **headers: str) -> str:
    """Import a conversation for the user and return its id."""
    response = client.post(IMPORT, json=file, params={"user_id": user}, headers=headers)
    assert response.status_code == 201, response.text
    conversation_id: str = success_body(response)["conversation"]["conversation_id"]
    return conversation_id


def export_file(client: httpx.Client, conversation_id: str) -> Fields:
    return success_body(client.get(f"{conversation_path(conversation_id)}/export"))


def timeless(file: Fields) -> Fields:
    """Return the file without the times of the conversation, which a copy does not share."""
    return {name: file[name] for name in file if name not in ("created_at", "exported_at")}


def file_name(response: httpx.Response) -> str:
    plain, _, encoded = response.headers["Content-Disposition"].partition("; filename*=UTF-8''")
    return unquote(encoded) if encoded else plain.partition('"')[2].removesuffix('"')


def with_messages(*messages: object) -> Fields:
    return {"messages": list(messages)}


HI = {"role": "user", "content": "Hi"}
BAD_FILES: dict[str, tuple[Fields, str]] = {
    "no format": ({"format": None}, "The field format must be chatledger-conversation."),
    "another format": ({"format": "ChatGPT"}, "The field format must be"),
    "another version": ({"version": 2}, "The field version must be 1"),
    "no messages": ({"messages": None}, "The field messages must be a list"),
    "an unknown field": ({"mesages": []}, "did you mean messages?"),
    "a title that is no text": ({"title": 7}, "The field title must be"),
    "too much metadata": ({"metadata": {"a": "x" * 5_000}}, "metadata is"),
    "a time without a zone": ({"created_at": "2026-12-01T09:30:00"}, "The field created_at"),
    "too many messages": ({"messages": [1] * 10_001}, "at most 10,000 messages"),
    "a message that is no object": (with_messages(HI, "Hi"), "messages[1] must be an object."),
    "no role": (with_messages(HI, {"content": "Hi"}), "The field messages[1].role must be"),
    "an unknown role": (with_messages(HI | {"role": "bot"}), "The field messages[0].role"),
    "no content": (with_messages({"role": "user"}), "The field messages[0].content must be"),
    "a number in the content": (with_messages(HI | {"content": [1]}), "messages[0].content"),
    "an unknown field of a message": (
        with_messages(HI, HI | {"rol": "user"}),
        "messages[1] has an unknown field; did you mean role?",
    ),
    "what a turn keeps": (with_messages(HI | {"extra": {}}), "messages[0] has an unknown"),
    "an empty id": (with_messages(HI | {"id": ""}), "messages[0].id must have"),
    "tool calls of texts": (with_messages(HI | {"tool_calls": [""]}), "messages[0].tool_calls"),
    "usage below 0": (
        with_messages(HI | {"usage": {"input_tokens": -1}}),
        "The field messages[0].usage must be",
    ),
    "usage of an unknown kind": (
        with_messages(HI | {"usage": {"tokens": 1}}),
        "The field messages[0].usage must be",
    ),
    "half a character": (
        with_messages(HI, HI, HI | {"content": f"{MARKER}\ud800"}),
        "messages[2].content contains a lone surrogate",
    ),
    "half a character in a block": (
        with_messages(HI | {"content": [{"text": "\udc00"}]}),
        "messages[0].content[0].text contains a lone surrogate",
    ),
    "metadata that is too large": (
        with_messages(HI | {"metadata": {"a": "x" * 20_000}}),
        "messages[0].metadata is",
    ),
}


class ExportContract:
    """Tests for every server; they need the fixture ``client``."""

    def test_an_imported_conversation_is_exported_as_it_was(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = import_file(client, FILE, user)
        copy = export_file(client, conversation_id)
        assert timeless(copy) == timeless(FILE)
        again = export_file(client, import_file(client, copy, user))
        assert timeless(again) == timeless(FILE)

    def test_a_conversation_of_turns_goes_on_after_its_import(self, client: httpx.Client) -> None:
        user, other = new_user(), new_user()
        original = send_message(client, "Hi, I am Bob", user_id=user)["conversation_id"]
        file = export_file(client, original)
        assert [message["role"] for message in file["messages"]] == ["user", "assistant"]
        assert file["messages"][1].keys() >= {"model", "stop_reason", "usage"}
        conversation_id = import_file(client, file, other)
        before = read_conversation(client, original)
        copy = read_conversation(client, conversation_id, user_id=other)
        assert (copy["title"], transcript(copy)) == (before["title"], transcript(before))
        fields = {"user_id": other, "conversation_id": conversation_id}
        assert "Bob" in send_message(client, "What is my name?", **fields)["response"]
        expect_error(client.get(f"{conversation_path(conversation_id)}?user_id={user}"), 404)

    def test_a_file_that_ends_with_a_question_can_be_answered(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = import_file(client, FILE | with_messages(HI) | {"metadata": {}}, user)
        path = conversation_path(conversation_id)
        assert "replying" not in read_conversation(client, conversation_id)
        assert expect_error(client.get(f"{path}/reply"), 404)["code"] == "no_reply"
        success_body(client.post(f"{path}/regenerate", json={"user_id": user}))
        roles = [role for role, _ in transcript(read_conversation(client, conversation_id))]
        assert roles == ["user", "assistant"]

    def test_more_messages_than_a_page_has_are_exported(self, client: httpx.Client) -> None:
        # More than the body of any other request may have.
        user, texts = new_user(), [f"number {n} " * 150 for n in range(201)]
        file = FILE | with_messages(*(HI | {"content": text} for text in texts))
        conversation_id = import_file(client, file, user)
        exported = export_file(client, conversation_id)["messages"]
        assert [message["content"] for message in exported] == texts

    def test_the_import_says_where_the_conversation_is(self, client: httpx.Client) -> None:
        user = new_user()
        response = client.post(IMPORT, json=FILE, params={"user_id": user})
        summary = success_body(response)["conversation"]
        assert (summary["title"], summary["message_count"]) == ("Weather", len(MESSAGES))
        found = client.get(urljoin(IMPORT, response.headers["Location"]))
        conversation = success_body(found)["conversation"]
        assert conversation["conversation_id"] == summary["conversation_id"]
        assert conversation["user_id"] == user
        assert found.headers["ETag"] == response.headers["ETag"]

    def test_a_file_is_imported_once_for_each_key(self, client: httpx.Client) -> None:
        user, key = new_user(), {"Idempotency-Key": "one"}
        for file in (FILE, FILE | {"messages": []}):
            key = {"Idempotency-Key": f"for {len(file['messages'])}"}
            first = import_file(client, file, user, **key)
            assert import_file(client, file, user, **key) == first
            assert import_file(client, file, new_user(), **key) != first
        reused = {"Idempotency-Key": f"for {len(MESSAGES)}"}
        other = client.post(
            IMPORT, json=FILE | with_messages(HI), params={"user_id": user}, headers=reused
        )
        assert expect_error(other, 422)["code"] == "idempotency_key_reused"
        assert len(conversation_ids(list_conversations(client, user))) == 2

    @pytest.mark.parametrize(("fields", "sentence"), BAD_FILES.values(), ids=BAD_FILES)
    def test_a_file_that_is_not_valid_is_refused_as_a_whole(
        self, client: httpx.Client, fields: Fields, sentence: str
    ) -> None:
        user = new_user()
        body = json.dumps(FILE | fields).encode()
        response = client.post(IMPORT, content=body, params={"user_id": user}, headers=JSON)
        error = expect_error(response, 422)
        assert sentence in error["error"]
        assert conversation_ids(list_conversations(client, user)) == []

    def test_an_import_needs_json_and_a_user(self, client: httpx.Client) -> None:
        params = {"user_id": new_user()}
        for body in (
            b"",
            b"[]",
            b'{"format": NaN}',
            json.dumps(FILE).encode()[:-9],
            b'{"a":1,"a":1}',
        ):
            expect_error(client.post(IMPORT, content=body, params=params, headers=JSON), 400)
        expect_error(client.post(IMPORT, content=b"{}", params=params), 400)
        expect_error(client.post(IMPORT, json=FILE), 400)

    @pytest.mark.parametrize(
        ("title", "name"),
        [
            ("Two weeks in Bergen", "Two weeks in Bergen"),
            ("", "Conversation"),
            ("../../etc/passwd", "etc passwd"),
            ('a"b\\c\r\nSet-Cookie: d', "a b c Set-Cookie d"),
            ("Übung: 日本語 🧠", "Übung 日本語 🧠"),
            ("日本語", "日本語"),
            ("\u202egnp.exe\u2066", "gnp.exe"),
            ("\uff02quoted\uff0fslashed\uff02", "\uff02quoted\uff0fslashed\uff02"),
            ("con", "con_"),
            (" . ", "Conversation"),
            ("100% sure; really='x'", "100% sure; really='x'"),
            ("x" * 1_000, "x" * 80),
            ("é" * 1_000, "é" * 80),
        ],
    )
    def test_the_title_becomes_the_name_of_the_file(
        self, client: httpx.Client, title: str, name: str
    ) -> None:
        conversation_id = create_conversation(client, user_id=new_user(), title=title)
        path = f"{conversation_path(conversation_id)}/export"
        for format, extension in (("json", "json"), ("markdown", "md")):
            response = client.get(path, params={"format": format})
            assert response.status_code == 200
            assert file_name(response) == f"{name}.{extension}"
            header = response.headers["Content-Disposition"]
            plain = header.partition("; filename*")[0]
            assert plain.startswith('attachment; filename="')
            assert header.isascii()
            assert plain.count('"') == 2
            assert not set("/\\%;") & set(plain.partition('"')[2])
        assert client.head(path).headers["Content-Disposition"]

    def test_markdown_has_each_message_below_its_role_and_time(self, client: httpx.Client) -> None:
        conversation_id = import_file(client, FILE, new_user())
        path = f"{conversation_path(conversation_id)}/export"
        response = client.get(path, params={"format": "markdown"})
        assert response.headers["Content-Type"].replace(" ", "") == "text/markdown;charset=utf-8"
        assert response.text == MARKDOWN

    def test_an_unknown_format_and_others_conversations_are_not_exported(
        self, client: httpx.Client
    ) -> None:
        conversation_id = import_file(client, FILE, new_user())
        path = f"{conversation_path(conversation_id)}/export"
        assert "json or markdown" in expect_error(client.get(f"{path}?format=pdf"), 422)["error"]
        assert (
            "did you mean format?" in expect_error(client.get(f"{path}?fomat=json"), 422)["error"]
        )
        expect_error(client.get(path, params={"user_id": new_user()}), 404)
        expect_error(client.get(f"{conversation_path('chatledger:usage')}/export"), 404)

    def test_a_conversation_may_be_named_like_the_import(self, client: httpx.Client) -> None:
        user = new_user()
        create = {"user_id": user, "message": "Hi"}
        success_body(client.post("/chat", json=create | {"conversation_id": "import"}))
        assert client.get(IMPORT, params={"user_id": user}).status_code == 200
        assert client.patch(IMPORT, json={"title": "t", "user_id": user}).status_code == 200
        assert client.delete(IMPORT, params={"user_id": user}).status_code == 200
        expect_error(client.get(IMPORT), 404)

    def test_a_conversation_may_be_named_like_an_export(self, client: httpx.Client) -> None:
        fields = {"user_id": new_user(), "message": "Hi", "conversation_id": f"{new_user()}/export"}
        success_body(client.post("/chat", json=fields))
        path = conversation_path(fields["conversation_id"])
        assert "conversation" in success_body(client.get(path))
        assert success_body(client.get(f"{path}/export"))["messages"][0]["content"] == "Hi"


MARKDOWN = """\
# Weather

## User

*2026-12-01 09:30 UTC*

> What is the weather in Bergen?

## Assistant

*2026-12-01 09:30 UTC · nova · tool\\_use*

> I look it up.

**Call of weather**

```
{
  "city": "Bergen"
}
```

## Tool

*2026-12-01 09:30 UTC*

> Rain 🌧

## Assistant

*2026-12-01 09:30 UTC · nova*

> It rains.
"""
