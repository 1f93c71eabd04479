"""Keep the content of messages out of the debug logs of third-party libraries."""

import logging

VERBOSE_LIBRARIES = ("botocore",)
"""Libraries that log whole requests and responses at DEBUG, with signatures and tokens in them."""


def keep_messages_out_of_logs() -> None:
    """Set the loggers of ``VERBOSE_LIBRARIES`` to INFO unless they have a level already.

    A program that logs everything at DEBUG thus logs no message. To debug one of the libraries, set
    its level explicitly: ``logging.getLogger("botocore").setLevel("DEBUG")``.
    """
    for name in VERBOSE_LIBRARIES:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
