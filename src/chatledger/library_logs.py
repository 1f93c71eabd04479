"""What people say stays out of the logs of the libraries that carry it."""

import logging

TALKATIVE = ("aiodynamo", "botocore")
"""Their loggers write whole requests and answers at DEBUG, signatures and tokens among them."""


def keep_messages_out_of_logs() -> None:
    """Have these log from INFO on, unless somebody has given them a level by their names.

    So a program that logs everything at DEBUG writes down no message; and who looks for a fault
    in one of them can still say so: ``logging.getLogger("botocore").setLevel("DEBUG")``.
    """
    for name in TALKATIVE:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
