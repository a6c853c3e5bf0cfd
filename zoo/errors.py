"""The one exception that users of the zoo are meant to read."""


class ZooError(ValueError):
    """A mistake that the message explains in one line; the command line prints it without a traceback."""

    def __init__(self, message: object) -> None:
        super().__init__(" ".join(str(message).split()))  # names in files and foreign messages may have line breaks
