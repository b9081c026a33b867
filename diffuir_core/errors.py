"""The exception for mistakes that the caller can correct."""


class UserError(Exception):
    """A wrong input from the caller: one sentence that names it and says what to do.

    The command line prints the sentence and exits with 2; the endpoint returns it in its response. Any other
    exception is a bug in the program and keeps its traceback.
    """
