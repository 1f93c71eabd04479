"""The examples and explanations in the description of the API: of bodies, errors and fields."""

from collections.abc import Mapping
from typing import Any

from chatledger.http import api, bodies
from chatledger.http.exports import FORMAT, VERSION
from chatledger.http.imports import ImportRequest

CONVERSATION_ID = "01a1fd15-8a3e-7c51-9b0d-6f2e4c7a1d38"
"""The id of a conversation in all examples."""
_QUESTION_ID = "01a1fd16-04c7-7d3f-a2e8-5b1d9c6f7a03"
_REPLY_ID = "01a1fd16-04c8-71b6-94fa-e7d2608c3b5e"
_USAGE = {"input_tokens": 4, "output_tokens": 50}
_SUMMARY = {
    "conversation_id": CONVERSATION_ID,
    "title": "A trip to Bergen",
    "created_at": "2026-12-01T09:30:00.000+00:00",
    "updated_at": "2026-12-01T09:30:02.250+00:00",
    "message_count": 2,
    "metadata": {"color": "green"},
}

_MESSAGES = [
    {
        "role": "user",
        "content": "Hi, I am Bob",
        "id": _QUESTION_ID,
        "seq": 1,
        "created_at": "2026-12-01T09:30:00.000+00:00",
    },
    {
        "role": "assistant",
        "content": "Hello, Bob!",
        "id": _REPLY_ID,
        "seq": 2,
        "created_at": "2026-12-01T09:30:02.250+00:00",
        "model": "offline",
        "stop_reason": "end_turn",
    },
]

EXAMPLES: Mapping[type[api.RequestBody], dict[str, Any]] = {
    api.ChatRequest: {"message": "Hi, I am Bob", "user_id": "bob"},
    api.CreateRequest: {"user_id": "bob", "title": "A trip to Bergen"},
    ImportRequest: {
        "format": FORMAT,
        "version": VERSION,
        "title": "A trip to Bergen",
        "messages": [{"role": "user", "content": "Hi, I am Bob"}],
    },
    api.UpdateRequest: {"user_id": "bob", "title": "Two weeks in Bergen"},
    api.ForkRequest: {"user_id": "bob"},
    api.StopRequest: {"user_id": "bob"},
    api.RegenerateRequest: {"user_id": "bob"},
    api.EditRequest: {"message": "Hi, I am Robert", "user_id": "bob"},
}
"""A valid request body of each type."""

PARAMETERS: Mapping[str, str] = {"user_id": "bob", "q": "bob"}
"""A value of the parameters of queries that requests must have, by their names."""

RESPONSES: Mapping[type[Any], dict[str, Any]] = {
    bodies.WelcomeBody: {**bodies.WELCOME},
    bodies.StatusBody: {**bodies.HEALTHY},
    bodies.SignInBody: {
        "kind": "oidc",
        "issuer": "https://issuer.example",
        "client_id": "2example34567890",
        "scope": "openid profile",
        "audience": "https://chat.example/api",
        "authorization_endpoint": "https://issuer.example/authorize",
        "token_endpoint": "https://issuer.example/token",
        "end_session_endpoint": "https://issuer.example/logout",
        "sends_issuer": True,
    },
    bodies.ReplyBody: {"response": "Hello, Bob!", "conversation_id": CONVERSATION_ID},
    bodies.CreatedBody: {"conversation_id": CONVERSATION_ID},
    bodies.DeletedBody: {**bodies.DELETED},
    bodies.DeletedAllBody: {"deleted": 3},
    bodies.StoppedBody: {"stopped": True},
    bodies.ModelsBody: {
        "models": [
            {"id": "bedrock:amazon.nova-lite-v1:0", "is_default": True},
            {"id": "offline", "is_default": False},
        ],
        "allows_system_prompt": True,
    },
    bodies.ListingBody: {"conversations": [_SUMMARY], "cursor": None},
    bodies.FoundBody: {
        "matches": [
            {
                "conversation_id": CONVERSATION_ID,
                "title": "A trip to Bergen",
                "seq": 1,
                "role": "user",
                "excerpt": "Hi, I am Bob",
                "spans": [[9, 12]],
            }
        ],
        "cursor": None,
        "complete": True,
    },
    bodies.ExportBody: {
        "format": FORMAT,
        "version": VERSION,
        "title": "A trip to Bergen",
        "metadata": {},
        "created_at": "2026-12-01T09:30:00.000+00:00",
        "exported_at": "2026-12-02T08:00:00.000+00:00",
        "messages": _MESSAGES,
    },
    bodies.UpdatedBody: {"conversation": _SUMMARY},
    bodies.ConversationBody: {
        "conversation": {
            "conversation_id": CONVERSATION_ID,
            "user_id": "bob",
            "title": "A trip to Bergen",
            "created_at": "2026-12-01T09:30:00.000+00:00",
            "updated_at": "2026-12-01T09:30:02.250+00:00",
            "messages": [
                {
                    "role": "user",
                    "content": "Hi, I am Bob",
                    "timestamp": "2026-12-01T09:30:00.000+00:00",
                    "id": _QUESTION_ID,
                    "seq": 1,
                },
                {
                    "role": "assistant",
                    "content": "Hello, Bob!",
                    "timestamp": "2026-12-01T09:30:02.250+00:00",
                    "id": _REPLY_ID,
                    "seq": 2,
                    "model": "offline",
                    "usage": _USAGE,
                    "stop_reason": "end_turn",
                },
            ],
            "metadata": {"color": "green", "message_count": 2},
        }
    },
}
"""A body of each type of successful responses."""

STREAM = "".join(
    bodies.frame(name, data, f"{_REPLY_ID}:{place}").decode()
    for name, data, place in (
        (
            "start",
            {"conversation_id": CONVERSATION_ID, "reply_id": _REPLY_ID, "seq": 1, "offset": 0},
            0,
        ),
        ("piece", {"text": "Hello,"}, 6),
        ("piece", {"text": " Bob!"}, 11),
        ("done", {"stop_reason": "end_turn", "usage": _USAGE}, bodies.DONE),
    )
)
"""The events of a streamed reply."""

SENTENCES: Mapping[str, str] = {
    "already_exists": "The conversation of the idempotency key was deleted and begun anew; send "
    "another key.",
    "conflict": "The conversation changed meanwhile; read it again and retry.",
    "daily_bytes_used": "You have stored as much as you may today; try again after midnight UTC.",
    "daily_conversations_used": "You have started too many conversations today; try again "
    "after midnight UTC.",
    "daily_tokens_used": "You have used up your tokens for today; try again after midnight UTC.",
    "disk_full": "The conversation could not be stored, because the server's disk is full; try "
    "again later.",
    "idempotency_key_reused": "The idempotency key was used for another call; use a new key for "
    "each call, and the same key only to repeat it.",
    "internal_error": "Something went wrong on the server; try again later.",
    "invalid_request": "The field message must be text of 1 to 32,000 characters that is not "
    "blank.",
    "invalid_token": "The token is not valid for this server; sign in again.",
    "malformed_request": "The request is not valid HTTP/1.1; send it with another client.",
    "method_not_allowed": "This address does not support this method; see the header Allow.",
    "model_refused": "The model does not accept this conversation; ask the operator of this "
    "server to check how the model is configured.",
    "model_throttled": "The model is overloaded; try again in a moment.",
    "model_timeout": "The model took too long; try again.",
    "model_unavailable": "The model is not available; try again later.",
    "no_reply": "Nobody is writing a reply to the last message; send it again, or regenerate the "
    "reply.",
    "no_streaming": "This server does not stream; send the same request to /chat.",
    "no_such_route": "There is nothing at this address.",
    "not_an_object": "The body must be a JSON object.",
    "not_found": "There is no such conversation.",
    "not_json": "Send JSON with the header Content-Type: application/json.",
    "not_signed_in": "Sign in: send a token in the header Authorization: Bearer.",
    "nothing_kept": "An Idempotency-Key needs a reply that is saved; add a user_id or a "
    "conversation_id, and do not set save_history to false.",
    "precondition_failed": "The conversation has changed since; read it again, and send its new "
    "ETag.",
    "reply_not_stored": "The model's reply could not be stored; send the message again, or ask for "
    "a shorter one.",
    "request_timeout": "The request did not arrive in time; send it again.",
    "server_busy": "The server is busy; try again in a moment.",
    "server_ending": "The server is shutting down; try again in a moment.",
    "sign_in_unavailable": "Sign-in is not available at the moment; try again in a moment.",
    "store_unavailable": "The conversation store is not available; try again later.",
    "system_prompt_fixed": "The operator of this server has set the system prompt; leave "
    "system_prompt out.",
    "too_large": "The body is too large; send at most 256 KiB.",
    "too_many_connections": "The server has too many connections; try again in a moment.",
    "too_many_conversations": "You have too many conversations; delete some before you start a "
    "new one.",
    "too_many_turns": "Too many of your turns are running at once; wait until one of them has "
    "ended.",
    "turn_in_progress": "An earlier reply is still being written, or was interrupted; try again in "
    "a moment.",
    "unknown_conversation": "There is no such conversation; add a user_id to start it.",
    "unknown_host": "This server does not answer to that host name.",
    "unknown_model": "There is no such model here; choose from: offline.",
    "wrong_user": "The user_id is not the signed-in user; leave it out.",
}
"""A sentence that responses with each code have."""

MARKDOWN = "# A trip to Bergen\n\n## User\n\n*2026-12-01 09:30 UTC*\n\n> Hi, I am Bob\n"
"""The beginning of an export in Markdown."""

FIELDS: Mapping[str, str] = {
    "audience": "The audience to ask for a token for, if any must be.",
    "authorization_endpoint": "The address at which users sign in.",
    "cached_tokens": "The input tokens that the model read from its prompt cache.",
    "cache_write_tokens": "The input tokens that the model wrote to its prompt cache.",
    "client_id": "The id of the page as a client of the issuer.",
    "code": "What is wrong, for programs.",
    "conversation": "The conversation.",
    "conversation_id": "The id of the conversation.",
    "conversations": "The conversations, newest activity first.",
    "created_at": "When the conversation was created.",
    "deleted": "How many conversations were deleted.",
    "documentation": "The address of the description of the API for programs.",
    "end_session_endpoint": "The address at which users sign out, if there is one.",
    "error": "What is wrong and what to do, for people.",
    "exported_at": "When the file was made.",
    "format": "The name of the format of the file.",
    "health": "The address of the health check.",
    "id": "The id of the message.",
    "input_tokens": "The tokens that the model read.",
    "issuer": "The issuer of the tokens.",
    "kind": "How users sign in: not at all, with a token that they have, or at the issuer.",
    "latency_ms": "The milliseconds that the model took.",
    "matches": "The messages and titles that were found, conversation by conversation.",
    "message": "The message.",
    "message_count": "How many messages the conversation has.",
    "messages": "Consecutive messages of the conversation, oldest first.",
    "metadata": "The client's own data.",
    "model": "The name of the model that wrote the reply.",
    "model_id": "The model that replies; by default the server's first one.",
    "output_tokens": "The tokens that the model wrote.",
    "reference": "The address of the description of the API for people.",
    "response": "The text of the reply.",
    "role": "Who wrote the message.",
    "save_history": "Whether the message and the reply are stored; by default if the request "
    "names a user or a conversation.",
    "scope": "The scopes to ask for.",
    "sends_issuer": "Whether the issuer names itself in its answers (RFC 9207).",
    "stop_reason": "Why the reply ended; stopped, failed and timed_out mean that it was "
    "interrupted.",
    "stopped": "Whether a reply was being written.",
    "system_prompt": "Instructions for the model, for this reply only.",
    "text": "The next part of the reply's text.",
    "timestamp": "When the message was made.",
    "title": "The title of the conversation.",
    "token_endpoint": "The address for requests for tokens.",
    "tool_calls": "The tool calls that the model asked for.",
    "updated_at": "When the conversation last changed.",
    "usage": "The tokens of the reply.",
    "user_id": "The owner of the conversation.",
    "version": "The version of that format.",
}
"""What the fields with each name mean, in the bodies of requests and responses."""
