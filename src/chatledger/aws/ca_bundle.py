"""The certificate authorities that connections to AWS trust."""

import os
import ssl

import boto3


class InvalidCABundle(Exception):
    """The configured CA bundle is missing or is not a file of certificates."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"The CA bundle {path!r} cannot be used ({reason}); correct AWS_CA_BUNDLE, ca_bundle "
            "in the AWS profile, or REQUESTS_CA_BUNDLE: the first of them that is set counts."
        )


def find_ca_bundle(session: boto3.Session) -> str | None:
    """Return the path of the CA bundle to trust, in botocore's order; None if none is configured.

    ``AWS_CA_BUNDLE`` counts first, then ``ca_bundle`` in the session's profile, then
    ``REQUESTS_CA_BUNDLE``. botocore's own clients follow the same order, so that a program that
    uses boto3 and aiohttp trusts the same authorities with both.
    """
    # boto3 has no public way to ask for it. get_config_variable reads AWS_CA_BUNDLE too.
    configured = session._session.get_config_variable("ca_bundle")
    return configured or os.environ.get("REQUESTS_CA_BUNDLE") or None


def ssl_argument(session: boto3.Session) -> ssl.SSLContext | bool:
    """Return what aiohttp takes as ``ssl``: a context for the bundle, or True for its defaults.

    Raises:
        InvalidCABundle: The bundle is missing or is not a file of certificates.
    """
    bundle = find_ca_bundle(session)
    if bundle is None:
        return True
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:  # ssl.SSLError is one too
        raise InvalidCABundle(bundle, error.strerror or str(error)) from error
