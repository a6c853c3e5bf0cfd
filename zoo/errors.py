"""The one exception that users of the zoo are meant to read."""


class ZooError(ValueError):
    """A mistake that the message explains in one line; the command line prints it without a traceback."""
