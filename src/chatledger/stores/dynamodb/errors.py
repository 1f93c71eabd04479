"""Failed calls: the failure that a reply describes, and the store's error for each failure."""

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from chatledger.aws.errors import CONNECTION_PROBLEMS, Problem, problem_of
from chatledger.errors import (
    AccessRefused,
    ChatledgerError,
    StoreUnavailable,
    TableMismatch,
    TableMissing,
)
from chatledger.stores.dynamodb.calls import NO_REPLY, CallFailed

NO_CREDENTIALS = "NoCredentials"
"""The ``code`` of a call that was not made because there are no credentials."""
GRANT = "grant them the permissions that chatledger.stores.dynamodb.policy lists"
_REFUSED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "ExpiredTokenException",
        "ExpiredToken",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "MissingAuthenticationTokenException",
        "NotAuthorized",
        "UnrecognizedClientException",
    }
)


def failure_from_error(error: Exception, operation: str, *, single_attempt: bool) -> CallFailed:
    """Return the failure of a call that raised one of ``REQUEST_ERRORS``, over boto3 or aiohttp.

    Args:
        error: The error.
        operation: The call's operation.
        single_attempt: Whether the client makes only one attempt. The error does not say how many
            it made, and an earlier one may have taken effect.
    """
    if isinstance(error, ClientError) and error.operation_name == operation:
        return _failure_from_client_error(error)
    problem = problem_of(error)
    if problem not in CONNECTION_PROBLEMS:
        # Nothing was sent: a profile, a sign-in or a role is missing, or the service that issues
        # credentials refused to.
        return CallFailed(NO_CREDENTIALS, str(error))
    connected = problem is not Problem.UNREACHABLE
    what = "no reply" if connected else "no connection"
    # Only a request that was never sent has certainly had no effect.
    unknown = connected or not single_attempt
    return CallFailed(NO_REPLY, f"{what}, {type(error).__name__}", unknown=unknown)


def _failure_from_client_error(error: ClientError) -> CallFailed:
    reply: Any = error.response
    metadata = reply.get("ResponseMetadata", {})
    return failure_from_reply(
        reply["Error"].get("Code", ""),
        reply["Error"].get("Message", ""),
        status=metadata.get("HTTPStatusCode", 0),
        reply=reply,
        attempts=1 + metadata.get("RetryAttempts", 0),
    )


def failure_from_reply(
    code: str, message: str, *, status: int, reply: Mapping[str, Any], attempts: int = 1
) -> CallFailed:
    """Return the failure that a reply describes.

    Args:
        code: DynamoDB's error code.
        message: DynamoDB's error message.
        status: The HTTP status.
        reply: The reply's body.
        attempts: How many attempts were made; this reply is to the last of them.
    """
    return CallFailed(
        "InternalServerError" if status >= 500 and not code.endswith("Exception") else code,
        message,
        item=reply.get("Item"),
        reasons=tuple(
            (None if reason["Code"] == "None" else reason["Code"], reason.get("Item"))
            for reason in reply.get("CancellationReasons", ())
        ),
        # The outcome of earlier attempts is not known.
        unknown=status >= 500 or attempts > 1,
    )


def closed_error(*, may_have_landed: bool = False) -> StoreUnavailable:
    """Return the error of a call to a store that was closed."""
    return StoreUnavailable(
        "The DynamoDB store was closed; open it again.", may_have_landed=may_have_landed
    )


def store_error(
    failed: CallFailed, table: str, *, use: str = "use", grant: str = GRANT
) -> ChatledgerError:
    """Return the error to raise for a failed call that no plan handles.

    Args:
        failed: The failure.
        table: The table's name.
        use: The verb for what the credentials must be allowed to do with the table.
        grant: The advice for credentials that are not.
    """
    if failed.code == "ResourceNotFoundException":
        return TableMissing(table)
    if failed.code == NO_CREDENTIALS:
        return AccessRefused(
            "There are no AWS credentials, or they could not be renewed; set AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, sign in again (aws sso login), or run "
            "with a role.",
            may_have_landed=failed.unknown,
        )
    if failed.code == "InvalidSignatureException":
        # AWS allows a difference of five minutes between the signature's time and its own.
        return AccessRefused(
            f"AWS refused the call ({failed.code}): the computer's clock is wrong by minutes, or "
            "the secret key is wrong; set the clock, or check AWS_SECRET_ACCESS_KEY.",
            may_have_landed=failed.unknown,
        )
    if failed.code in _REFUSED:
        return AccessRefused(
            f"AWS refused the call ({failed.code}): the credentials have expired, or may not {use} "
            f"table {table!r}; renew them, or {grant}.",
            may_have_landed=failed.unknown,
        )
    if failed.code == "ValidationException":
        # The calls are valid for every table that create_table made, so this is a different table.
        return TableMismatch(
            table,
            [f"DynamoDB says: {failed.message.rstrip('.')}"],
            f"chatledger.stores.dynamodb.check_table(client, {table!r}) says how to correct it.",
        )
    return StoreUnavailable(
        f"DynamoDB refused a call ({failed.code}); check with "
        f"chatledger.stores.dynamodb.check_table(client, {table!r}) that the table is one that "
        "create_table made.",
        may_have_landed=failed.unknown,
    )
