"""The one error that users are meant to see."""


class PersonalignError(Exception):
    """Something the user can mend. The message says what was passed, why it cannot work, and what to write.

    The command line prints the message without a traceback and exits with code 1.
    """
