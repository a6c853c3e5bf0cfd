"""Reads the user's own families of tokens in a known order from a file."""

import json
from typing import Any, get_args

import yaml

from zoo.analysis.token_families import Order, Ordered, known_families
from zoo.errors import ZooError
from zoo.paths import expanded

EXAMPLE = "'planets: [Mercury, Venus, Earth, ...]' or 'planets: {order: linear, members: [...]}'"


def read_families(file: str | None) -> dict[str, Ordered]:
    """Return the families to search for: those of the zoo and those in a file.

    A family in the file replaces a family of the zoo with the same name.

    Args:
        file: YAML or JSON file with a mapping from a family's name to the list of its members, in cyclic order, or to
            {order: cyclic or linear, members: [...]}. Members are words; tokens match them with or without a leading
            space and a capital. None for the zoo's families alone.

    Raises:
        ZooError: If the file cannot be read or has other contents.
    """
    if file is None:
        return known_families()
    path = expanded(file)
    try:
        text = path.read_text("utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.load(text, _Strict)
    except OSError as error:
        raise ZooError(f"--families {file} cannot be read: {error.strerror}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise ZooError(f"--families {file} is not valid YAML or JSON: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise ZooError(f"--families {file} must contain a mapping of names to members, such as {EXAMPLE}")
    return known_families() | {str(name): _family(file, str(name), entry) for name, entry in content.items()}


class _Strict(yaml.SafeLoader):
    """YAML loader that reads every plain word as text, so that members may be written no, 1e3 or 2001-01-01."""


_Strict.yaml_implicit_resolvers = {}


def _family(file: str, name: str, entry: Any) -> Ordered:
    order: Any = "cyclic"
    members = entry
    if isinstance(entry, dict):
        if set(entry) - {"order", "members"} or "members" not in entry:
            raise ZooError(f"--families {file}: {name} must have 'members' and may have 'order'; it has {list(entry)}")
        order, members = entry.get("order", "cyclic"), entry["members"]
    if order not in get_args(Order):
        raise ZooError(f"--families {file}: the order of {name} is {order!r}; it must be cyclic or linear")
    if not isinstance(members, list) or not all(isinstance(m, str | int) and not isinstance(m, bool) for m in members):
        raise ZooError(f"--families {file}: the members of {name} must be a list of words, such as {EXAMPLE}")
    from zoo.analysis.circles import LEAST

    words = [str(member).strip() for member in members]
    wrong = next((word for word in words if words.count(word) > 1 or not word), None)
    if wrong is not None:
        raise ZooError(f"--families {file}: {name} has {f'{wrong!r} twice' if wrong else 'a member without text'}")
    if len(words) < LEAST:
        raise ZooError(f"--families {file}: {name} has {len(words)} members; at least {LEAST} are needed")
    return Ordered(order, words)
