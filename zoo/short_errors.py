"""One line instead of a parser's page."""


def explain_parse_error(message: str) -> str:
    return message


def explain_exception(error):
    return repr(error)
