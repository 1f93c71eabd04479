"""What DynamoDB and the way to it answer, in our words; translated once, here."""

from collections.abc import Mapping
from typing import Any

from chatledger.errors import (
    AccessRefused,
    ChatledgerError,
    StoreUnavailable,
    TableMismatch,
    TableMissing,
)
from chatledger.stores.dynamodb.calls import NO_ANSWER, CallFailed

NO_CREDENTIALS = "NoCredentials"
"""The ``code`` of a call that was not made for want of credentials."""

_REFUSED = frozenset(
    {
        NO_CREDENTIALS,
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredTokenException",
        "ExpiredToken",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "UnrecognizedClientException",
    }
)


def answered(
    code: str, message: str, *, status: int, reply: Mapping[str, Any], tries: int = 1
) -> CallFailed:
    """The failure that a reply with that HTTP status and body tells, after so many ``tries``."""
    return CallFailed(
        "InternalServerError" if status >= 500 and not code.endswith("Exception") else code,
        message,
        item=reply.get("Item"),
        reasons=tuple(
            (None if reason["Code"] == "None" else reason["Code"], reason.get("Item"))
            for reason in reply.get("CancellationReasons", ())
        ),
        # Of tries before the last nothing is known.
        unknown=status >= 500 or tries > 1,
    )


def unanswered(error: Exception, *, connected: bool, tries: int = 1) -> CallFailed:
    """The failure of a call that no answer came to, or not whole."""
    what = "no answer" if connected else "no connection"
    # Only of what was never sent it is sure that nothing was done.
    unknown = connected or tries > 1
    return CallFailed(NO_ANSWER, f"{what}, {type(error).__name__}", unknown=unknown)


def translated(failed: CallFailed, table: str) -> ChatledgerError:
    """The error for a call whose failure no plan deals with."""
    if failed.code == "ResourceNotFoundException":
        return TableMissing(table)
    if failed.code == NO_CREDENTIALS:
        return AccessRefused(
            "There are no AWS credentials here, or they could not be renewed; set AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, sign in again (aws sso login), or run "
            "where a role gives them.",
            may_have_landed=failed.unknown,
        )
    if failed.code in _REFUSED:
        return AccessRefused(
            f"AWS refused the call ({failed.code}): the credentials have expired, or may not use "
            f"table {table!r}; renew them, or give them the rights of "
            "chatledger.stores.dynamodb.policy.",
            may_have_landed=failed.unknown,
        )
    if failed.code == "ValidationException":
        # Our calls are sound, so it is the table that they do not fit.
        return TableMismatch(
            table,
            [f"DynamoDB says, {failed.message.rstrip('.')}"],
            f"chatledger.stores.dynamodb.check_table(client, {table!r}) tells what mends it.",
        )
    return StoreUnavailable(
        f"DynamoDB refused a call of ours ({failed.code}); is {table!r} a table that "
        "chatledger.stores.dynamodb.create_table made? check_table tells.",
        may_have_landed=failed.unknown,
    )
