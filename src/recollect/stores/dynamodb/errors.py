"""What DynamoDB and the way to it answer, in our words; translated once, here."""

from recollect.errors import AccessRefused, RecollectError, StoreUnavailable, TableMissing
from recollect.stores.dynamodb.calls import CallFailed

NO_CREDENTIALS = "NoCredentials"
"""The ``code`` of a call that was not made for want of credentials."""

_REFUSED = frozenset(
    {
        NO_CREDENTIALS,
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


def translated(failed: CallFailed, table: str) -> RecollectError:
    """The error for a call whose failure no plan deals with."""
    if failed.code == "ResourceNotFoundException":
        return TableMissing(table)
    if failed.code == NO_CREDENTIALS:
        return AccessRefused(
            "There are no AWS credentials here; set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or run where a role gives them."
        )
    if failed.code in _REFUSED:
        return AccessRefused(
            f"AWS refused the call ({failed.code}): the credentials have expired, or may not use "
            f"table {table!r}; renew them, or give them the rights of "
            "recollect.stores.dynamodb.policy."
        )
    return StoreUnavailable(
        f"DynamoDB refused a call of ours ({failed.code}); is {table!r} a table that "
        "recollect.stores.dynamodb.create_table made? check_table tells.",
        may_have_landed=failed.unknown,
    )
