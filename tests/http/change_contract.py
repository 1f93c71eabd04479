"""HTTP contract of every server: replies, messages and conversations that change."""

import httpx

from tests.http.client import (
    conversation_path,
    create_conversation,
    expect_error,
    new_user,
    read_conversation,
    send_message,
    success_body,
    transcript,
)


class ChangeContract:
    """Tests for every server; they need the fixture ``client``."""

    def test_an_edited_message_names_the_copy_with_the_former_branch(
        self, client: httpx.Client
    ) -> None:
        user = new_user()
        conversation_id = send_message(client, "Hi, I am Bob", user_id=user)["conversation_id"]
        before = read_conversation(client, conversation_id)
        path = f"{conversation_path(conversation_id)}/messages/{before['messages'][0]['seq']}"
        fields = {"message": "Hi, I am Ann", "user_id": user}
        answer = success_body(client.put(path, json=fields))
        assert "Ann" in answer["response"]
        question, reply = read_conversation(client, conversation_id)["messages"]
        assert (question["content"], reply["content"]) == ("Hi, I am Ann", answer["response"])
        assert question["branch_id"] == answer["branch_id"]
        copy = read_conversation(client, answer["branch_id"])
        assert transcript(copy) == transcript(before)
        missing = client.put(f"{conversation_path(conversation_id)}/messages/999", json=fields)
        expect_error(missing, 404)

    def test_nothing_is_stopped_where_no_reply_is_written(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = send_message(client, "Hi", user_id=user)["conversation_id"]
        path = f"{conversation_path(conversation_id)}/stop"
        assert success_body(client.post(path, json={"user_id": user})) == {"stopped": False}
        expect_error(client.post(path, json={"user_id": new_user()}), 404)

    def test_a_stored_reply_is_followed_from_any_place(self, client: httpx.Client) -> None:
        answer = send_message(client, "Hi", user_id=new_user())
        path = f"{conversation_path(answer['conversation_id'])}/reply"
        whole = client.get(path)
        assert whole.headers["Content-Type"].startswith("text/event-stream")
        ids = [line[4:] for line in whole.text.splitlines() if line.startswith("id: ")]
        start, piece, done = ids
        assert answer["response"] in whole.text
        assert "event: piece" in client.get(path, headers={"Last-Event-ID": start}).text
        assert "event: piece" not in client.get(path, headers={"Last-Event-ID": piece}).text
        assert client.get(path, headers={"Last-Event-ID": done}).status_code == 204
        empty = create_conversation(client, user_id=new_user())
        missing = client.get(f"{conversation_path(empty)}/reply")
        assert expect_error(missing, 404)["code"] == "no_reply"

    def test_a_reply_is_regenerated_once_for_each_key(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = send_message(client, "Hi", user_id=user)["conversation_id"]
        path = f"{conversation_path(conversation_id)}/regenerate"

        def regenerate(key: str) -> str:
            headers = {"Idempotency-Key": key}
            success_body(client.post(path, json={"user_id": user}, headers=headers))
            _, reply = read_conversation(client, conversation_id)["messages"]
            return str(reply["id"])

        first = regenerate("one")
        assert regenerate("one") == first
        assert regenerate("two") != first

    def test_a_request_with_an_old_etag_changes_nothing(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = send_message(client, "Hi", user_id=user)["conversation_id"]
        path = conversation_path(conversation_id)
        old = client.get(path).headers["ETag"]
        titled = client.patch(path, json={"title": "New"}, headers={"If-Match": old})
        assert success_body(titled)["conversation"]["title"] == "New"
        new = titled.headers["ETag"]
        assert client.get(path).headers["ETag"] == new != old
        send_message(client, "And?", conversation_id=conversation_id)
        before = read_conversation(client, conversation_id)
        for method, part, body in (
            ("PATCH", "", {"title": "Newer"}),
            ("POST", "/regenerate", {}),
            ("PUT", "/messages/1", {"message": "Ho"}),
            ("DELETE", "", None),
        ):
            response = client.request(method, path + part, json=body, headers={"If-Match": new})
            assert expect_error(response, 412)["code"] == "precondition_failed"
        assert read_conversation(client, conversation_id) == before
        for wrong in ("W/x", f'"{2**53}.0"'):
            expect_error(client.patch(path, json={"title": "x"}, headers={"If-Match": wrong}), 400)
        latest = client.get(path).headers["ETag"]
        success_body(client.request("DELETE", path, headers={"If-Match": latest}))
        expect_error(client.get(path), 404)

    def test_title_and_metadata_are_changed(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = create_conversation(client, user_id=user, title="Old")
        path = conversation_path(conversation_id)
        fields = {"user_id": user, "metadata": {"pinned": True}}
        summary = success_body(client.patch(path, json=fields))["conversation"]
        assert (summary["title"], summary["metadata"]) == ("Old", {"pinned": True})
        # What a client reads, it may send back.
        metadata = success_body(client.get(path))["conversation"]["metadata"]
        assert metadata == {"pinned": True, "message_count": 0}
        summary = success_body(client.patch(path, json={"metadata": metadata, "title": ""}))
        assert summary["conversation"]["metadata"] == {"pinned": True}
        assert summary["conversation"]["title"] is None
        expect_error(client.patch(path, json={}), 422)
        expect_error(client.patch(path, json={"title": "x", "user_id": new_user()}), 404)

    def test_a_conversation_is_copied_once_for_each_key(self, client: httpx.Client) -> None:
        user = new_user()
        conversation_id = send_message(client, "Hi", user_id=user)["conversation_id"]
        path = f"{conversation_path(conversation_id)}/fork"
        headers = {"Idempotency-Key": "copy"}
        first = success_body(client.post(path, json={"user_id": user}, headers=headers))
        again = success_body(client.post(path, json={"user_id": user}, headers=headers))
        assert first == again
        copied = read_conversation(client, first["conversation_id"])
        assert transcript(copied) == transcript(read_conversation(client, conversation_id))
        seq = read_conversation(client, conversation_id)["messages"][0]["seq"]
        part = success_body(client.post(path, json={"at": seq}))["conversation_id"]
        assert transcript(read_conversation(client, part)) == [("user", "Hi")]

    def test_all_conversations_of_a_user_are_deleted(self, client: httpx.Client) -> None:
        user, other = new_user(), new_user()
        kept = create_conversation(client, user_id=other)
        ids = [create_conversation(client, user_id=user) for _ in range(3)]
        expect_error(client.delete("/conversations"), 400)
        deleted = success_body(client.delete("/conversations", params={"user_id": user}))
        assert deleted == {"deleted": 3}
        for conversation_id in ids:
            expect_error(client.get(conversation_path(conversation_id)), 404)
        assert read_conversation(client, kept)["user_id"] == other
