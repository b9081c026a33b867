"""The one exception for what a caller can put right."""


class UserError(Exception):
    """Something the caller gave is wrong: one sentence that names it and says what to do.

    The command line prints the sentence and exits with 2; a service answers with it. Anything else that is
    raised is a fault of the program and keeps its traceback.
    """
