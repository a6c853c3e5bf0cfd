"""`ZooError`, the exception for all mistakes that a user can correct."""


class ZooError(ValueError):
    """An error that the message explains in one line. The command line prints it without a traceback."""

    def __init__(self, message: object) -> None:
        # File names and messages of other libraries may have line breaks.
        super().__init__(" ".join(str(message).split()))
