"""Errors that are the user's to mend."""


class UserError(Exception):
    """Bad input, told in one line: what was given, what is allowed, what to do. The command line exits with 2."""
