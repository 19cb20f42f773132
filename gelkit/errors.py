"""The errors that a user can cause or mend; the command line shows them without a traceback."""


class GelkitError(Exception):
    """Something failed. The message says what was expected, what was received, what to do."""


class UsageError(GelkitError):
    """Gelkit was asked for something that cannot be done as asked: change the call or the data."""
