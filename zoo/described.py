"""A base class with a `repr` for objects that are configured by numbers and strings."""


class Described:
    """An object whose `repr` shows its class and its public attributes that are numbers, strings or bools."""

    _not_shown: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shown = {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_") and name not in self._not_shown and isinstance(value, bool | int | float | str)
        }
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"
