"""HTTP contract: a message whose reply failed can be sent again, and is there once."""

import httpx
import pytest

from chatledger.testing.bedrock_server import (
    BedrockServer,
    DropsConnection,
    Fails,
    FailsMidStream,
    Says,
    ScriptedResponse,
)
from tests.http.client import (
    MARKER,
    conversation_ids,
    expect_error,
    json_body,
    list_conversations,
    new_user,
    read_conversation,
    send_message,
    transcript,
)

MODEL = "bedrock:amazon.nova-lite-v1:0"
FAULTS: dict[str, ScriptedResponse] = {
    "before the first piece": Fails("AccessDeniedException"),
    "in mid-reply": FailsMidStream("modelStreamErrorException", after=2, message=MARKER),
    "when the connection breaks": DropsConnection(after=2),
}


class FailureContract:
    """Tests for servers whose model is ``MODEL``, asked at the fixture ``bedrock``."""

    @pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
    def test_a_message_sent_again_to_the_conversation_that_the_error_names_is_there_once(
        self, client: httpx.Client, bedrock: BedrockServer, fault: ScriptedResponse
    ) -> None:
        user = new_user()
        bedrock.reset()
        bedrock.script(fault, fault, Says("Here I am."))
        answer = client.post("/chat", json={"message": MARKER, "user_id": user})
        conversation_id = json_body(answer)["conversation_id"]
        expect_error(answer, 502, 503, conversation_id=conversation_id)
        fields = {"user_id": user, "conversation_id": conversation_id}
        answer = client.post("/chat", json={"message": MARKER} | fields)
        expect_error(answer, 502, 503, conversation_id=conversation_id)
        assert send_message(client, MARKER, **fields)["response"] == "Here I am."
        assert transcript(read_conversation(client, conversation_id)) == [
            ("user", MARKER),
            ("assistant", "Here I am."),
        ]
        assert conversation_ids(list_conversations(client, user)) == [conversation_id]

    def test_the_error_of_a_one_off_reply_names_no_conversation(
        self, client: httpx.Client, bedrock: BedrockServer
    ) -> None:
        bedrock.reset()
        bedrock.script(Fails("AccessDeniedException"))
        expect_error(client.post("/chat", json={"message": MARKER}), 502)

    def test_the_error_of_a_reply_that_is_not_stored_names_no_conversation(
        self, client: httpx.Client, bedrock: BedrockServer
    ) -> None:
        user = new_user()
        bedrock.reset()
        bedrock.script(Says("Hello."), Fails("AccessDeniedException"))
        stored = send_message(client, MARKER, user_id=user)
        fields = {"conversation_id": stored["conversation_id"], "save_history": False}
        answer = client.post("/chat", json={"message": MARKER, "user_id": user} | fields)
        expect_error(answer, 502)
