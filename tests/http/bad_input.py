"""Invalid requests, requests that a server must survive, and ids that look odd but are valid."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from chatledger.http.api import MAX_MESSAGE_CHARACTERS
from tests.http.client import MARKER, Fields

MAX_BODY_BYTES = 256 * 1024
"""Longest body that a server reads; one byte more is 413."""
MAX_ID_BYTES = 2_000
"""Longest id of a conversation or a user, in UTF-8."""
MAX_TITLE_CHARACTERS = 1_000


def named_params(rows: Mapping[str, object]) -> list[Any]:
    """Turn ``rows`` into parameters of a test, each named by its key."""
    return [pytest.param(value, id=name) for name, value in rows.items()]


# Bodies ---------------------------------------------------------------------------------------


def _with(text: str) -> bytes:
    """Return a body that would be valid on every POST route without ``text``."""
    return f'{{"message": "{MARKER}", "user_id": "u", {text}}}'.encode()


def _from(user: str) -> bytes:
    return f'{{"message": "{MARKER}", "user_id": {user}}}'.encode()


NOT_JSON = named_params(
    {
        "empty": b"",
        "blank": b" \n",
        "not JSON": f"message={MARKER}".encode(),
        "cut short": f'{{"message": "{MARKER}'.encode(),
        "single quotes": f"{{'message': '{MARKER}', 'user_id': 'u'}}".encode(),
        "a comma too many": _with(""),
        "something after it": _with('"title": "t"') + b"{}",
        "a comment": _with('"title": "t" /* why */'),
        "a raw newline in text": _with('"title": "one\ntwo"'),
        "null": b"null",
        "true": b"true",
        "a number": b"1",
        "text": f'"{MARKER}"'.encode(),
        "a list": f'[{{"message": "{MARKER}", "user_id": "u"}}]'.encode(),
        "NaN in an unknown field": _with('"unknown": NaN'),
        "Infinity": _with('"unknown": Infinity'),
        "minus Infinity": _with('"unknown": [-Infinity]'),
        "UTF-16": json.dumps({"message": MARKER, "user_id": "u"}).encode("utf-16"),
        "UTF-32": json.dumps({"message": MARKER, "user_id": "u"}).encode("utf-32-le"),
        "lists 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
        "lists 100,000 deep, never closed": b"[" * 100_000,
        "objects 40,000 deep": b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
        "a user 100,000 lists deep": _from("[" * 100_000 + "]" * 100_000),
        "a key twice": _with('"user_id": "v"'),
        "a key twice, once escaped": _with('"user\\u005fid": "v"'),
        "a user of 5,000 digits": _from("9" * 5_000),
        "a user beyond all floats": _from("1e999"),
        "a user that is not a number": _from("NaN"),
    }
)
"""Bodies that every POST route rejects."""

NOT_UTF8 = named_params(
    {
        "invalid UTF-8": _with('"title": "t"').replace(b'"t"', b'"\xff\xfe"'),
        "invalid UTF-8 in an unknown field": _with('"unknown": "t"').replace(b'"t"', b'"\xc3("'),
    }
)
"""More such bodies, which are valid if a gateway replaces the invalid bytes."""

MALFORMED = [*NOT_JSON, *NOT_UTF8]

ODD_BODIES = named_params(
    {
        "an unknown field": _with('"unknown": [1, {"a": null}]'),
        "an unknown field of 5,000 digits": _with('"unknown": ' + "9" * 5_000),
        "an unknown field with a lone surrogate": _with(r'"unknown": "\ud800"'),
        "a lone surrogate for a key": _with(r'"\udfff": 1'),
        "an unknown field 500 deep": _with('"unknown": ' + "[" * 500 + "]" * 500),
        "an empty key": _with('"": ""'),
        "a key of Python's": _with('"__class__": "str", "self": 1'),
        "a byte order mark": b"\xef\xbb\xbf" + _with('"title": "t"'),
        "a NUL in a title": _with(r'"title": "\u0000"'),
    }
)
"""Bodies that the contract does not cover, but that must not cause a server error."""


# Fields: each makes an otherwise valid body invalid ----------------------------------

MISSING = object()


def body_with(fields: Fields) -> bytes:
    """Return ``fields`` as JSON, without those that are ``MISSING``."""
    present = {name: value for name, value in fields.items() if value is not MISSING}
    return json.dumps(present).encode()


def _not_text(field: str) -> dict[str, Fields]:
    values = {"a number": 7, "true": True, "a list": [MARKER], "an object": {MARKER: MARKER}}
    return {f"{field} is {name}": {field: value} for name, value in values.items()} | {
        f"{field} has a lone surrogate": {field: f"{MARKER}\ud800"},
        f"{field} has half a pair": {field: f"\udc00{MARKER}"},
    }


def _not_an_id(field: str) -> dict[str, Fields]:
    return _not_text(field) | {
        f"{field} is empty": {field: ""},
        f"{field} is too long": {field: "x" * (MAX_ID_BYTES + 1)},
        f"{field} is too long in UTF-8": {field: "é" * (MAX_ID_BYTES // 2 + 1)},
    }


BAD_CHAT = named_params(
    {
        "message is missing": {"message": MISSING},
        "message is null": {"message": None},
        "message is empty": {"message": ""},
        "message is blank": {"message": " \n\t"},
        "message is blank in Unicode": {"message": "\u00a0\u2003\u3000\u2028"},
        "message is too long": {"message": "x" * (MAX_MESSAGE_CHARACTERS + 1)},
        "message is too long with its blanks": {"message": "x" + " " * MAX_MESSAGE_CHARACTERS},
        **_not_text("message"),
        **_not_an_id("conversation_id"),
        **_not_an_id("user_id"),
        **_not_text("system_prompt"),
        **_not_text("model_id"),
        "model_id is empty": {"model_id": ""},
        "model_id is unknown": {"model_id": "telepathy"},
        "model_id is of an unknown kind": {"model_id": "telepathy:v1"},
        "model_id is a path": {"model_id": "../../etc/passwd"},
        "save_history is text": {"save_history": "true"},
        "save_history is empty": {"save_history": ""},
        "save_history is 1": {"save_history": 1},
        "save_history is 0": {"save_history": 0},
        "save_history is 1.0": {"save_history": 1.0},
        "save_history is a list": {"save_history": []},
        "save_history is an object": {"save_history": {MARKER: True}},
    }
)

BAD_CONVERSATION = named_params(
    {
        "user_id is missing": {"user_id": MISSING},
        "user_id is null": {"user_id": None},
        **_not_an_id("user_id"),
        **_not_text("title"),
        "title is too long": {"title": "x" * (MAX_TITLE_CHARACTERS + 1)},
    }
)


# The rest of a request ------------------------------------------------------------------------

BAD_CONTENT_TYPES = named_params(
    {
        "none": {},
        "empty": {"Content-Type": ""},
        "nonsense": {"Content-Type": "nonsense"},
        "another kind of JSON": {"Content-Type": "application/jsonl"},
        # Pages of other sites can send these three without a CORS preflight.
        "text": {"Content-Type": "text/plain"},
        "a form": {"Content-Type": "application/x-www-form-urlencoded"},
        "a form with files": {"Content-Type": "multipart/form-data; boundary=application/json"},
    }
)

BAD_LIST = named_params(
    {
        "no user_id": "",
        "user_id empty": "user_id=",
        "user_id too long": "user_id=" + "x" * (MAX_ID_BYTES + 1),
        "user_id twice": "user_id=u&user_id=v",
        "limit 0": "user_id=u&limit=0",
        "limit 101": "user_id=u&limit=101",
        "limit below 0": "user_id=u&limit=-1",
        "limit no number": "user_id=u&limit=abc",
        "limit empty": "user_id=u&limit=",
        "limit a fraction": "user_id=u&limit=1.5",
        "limit in the notation of floats": "user_id=u&limit=1e1",
        "limit NaN": "user_id=u&limit=NaN",
        "limit of 5,000 digits": "user_id=u&limit=" + "9" * 5_000,
        "limit twice": "user_id=u&limit=1&limit=2",
        "cursor nonsense": "user_id=u&cursor=nonsense",
        "cursor empty": "user_id=u&cursor=",
        "cursor a NUL": "user_id=u&cursor=%00",
        "cursor an emoji": "user_id=u&cursor=%F0%9F%A7%A0",
        "cursor not UTF-8": "user_id=u&cursor=%FF",
        "cursor twice": "user_id=u&cursor=a&cursor=b",
        # {}, [], null, 1, [1, 2] and [[[[... in base64
        "cursor an object": "user_id=u&cursor=e30",
        "cursor an empty list": "user_id=u&cursor=W10",
        "cursor null": "user_id=u&cursor=bnVsbA",
        "cursor a number": "user_id=u&cursor=MQ",
        "cursor a list of others": "user_id=u&cursor=WzEsMl0",
        "cursor of lists 15,000 deep": "user_id=u&cursor=" + "W1tb" * 5_000,
    }
)

BAD_PAGE = named_params(
    {
        "before 0": "before=0",
        "before below 0": "before=-1",
        "before no number": "before=abc",
        "before empty": "before=",
        "before a fraction": "before=1.5",
        "before of 5,000 digits": "before=" + "9" * 5_000,
        "before beyond all seqs": f"before={2**63}",
        "before twice": "before=1&before=2",
        "after below 0": "after=-1",
        "after beyond all seqs": f"after={2**63}",
        "before and after": "before=9&after=1",
        "limit 0": "limit=0",
        "limit 101": "limit=101",
        "limit no number": "limit=abc",
        "limit empty": "limit=",
        "limit twice": "limit=1&limit=2",
    }
)

ODD_IDS = named_params(
    {
        "unicode": "Gespräch 日本語 🧠",
        "a hash": "a#b",
        "a question mark": "a?user_id=b&c",
        "percent": "100%",
        "percent, encoded already": "a%2Fb%20c",
        "slashes": "a/b/c",
        "a slash first": "/a",
        "a slash last": "a/",
        "two slashes": "a//b",
        "a backslash": "a\\b",
        "spaces": " a  b ",
        "plus": "a+b",
        "a point": ".",
        "two points": "..",
        "up and away": "../health",
        "a semicolon": "a;b=c",
        "quotes and tags": "\"'`<script>",
        "two lines": "a\nb",
        "a newline last": "a\n",
        "the name of a route": "conversations",
        "the name of a part": "reply",
        "the path of a part": "a/messages/1",
        "a letter and its accent": "cafe\u0301",
        "the longest": "x" * MAX_ID_BYTES,
        "the longest in UTF-8": "é" * (MAX_ID_BYTES // 2),
    }
)
"""Valid ids of conversations, chosen by clients."""


# Anything at all ------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=[]), max_size=20)  # lone surrogates too

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
_fields = ["message", "conversation_id", "user_id", "model_id", "system_prompt", "save_history"]
_any_object = st.dictionaries(st.sampled_from(_fields) | TEXT, _values, max_size=8)
# Most of these pass the first checks.
_likely_object = st.fixed_dictionaries(
    {"message": TEXT, "user_id": TEXT},
    optional={
        "conversation_id": TEXT,
        "system_prompt": TEXT | st.none(),
        "save_history": st.booleans() | st.none(),
        "title": TEXT | st.none(),
    },
)
_json = (_any_object | _likely_object | _values).map(json.dumps).map(str.encode)
BODIES = _json | st.binary(max_size=200)


def _encoded(query: dict[str, str]) -> str:
    return "&".join(
        f"{quote(name, errors='surrogatepass')}={quote(value, errors='surrogatepass')}"
        for name, value in query.items()
    )


QUERIES = st.dictionaries(
    st.sampled_from(["user_id", "limit", "cursor"]) | TEXT,
    st.integers().map(str) | TEXT,
    max_size=4,
).map(_encoded)

any_input = settings(
    max_examples=150,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,  # the client has no state between examples
        HealthCheck.differing_executors,  # the classes of several servers run the same test
    ],
)
