"""Keep the content of messages out of the debug logs of botocore."""

import logging


def keep_messages_out_of_logs() -> None:
    """Set botocore's logger to INFO unless it has a level already.

    At DEBUG, it logs whole requests and responses, with signatures and tokens in them. Thus a
    program that logs everything at DEBUG logs no message. To debug botocore, set its level
    explicitly: ``logging.getLogger("botocore").setLevel("DEBUG")``.
    """
    logger = logging.getLogger("botocore")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
