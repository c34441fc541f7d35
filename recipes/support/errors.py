"""Errors that the user can fix."""


class UserError(Exception):
    """Invalid input. Its message is one line: what was given, what is allowed, what to do.

    The command line prints the message and exits with code 2.
    """
