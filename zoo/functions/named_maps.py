"""Maps from parameters to functions by their names and settings, as on the command line."""

import importlib
import inspect
from math import ceil
from typing import Any

from zoo.errors import ZooError
from zoo.functions import maps
from zoo.functions.maps import MLP, ParameterFunctionMap, Polynomial

SAME = 0.15  # difference of numbers of parameters, as a share, up to which they count as the same


def named_map(text: str, n_inputs: int, coding: str = "bits") -> ParameterFunctionMap:
    """Return the map with a name and settings, such as MLP:widths=40-40,sigma_w=2 or mine.MyMap.

    Args:
        text: A class of `zoo.functions.maps`, or your own class as module.Class, and settings after a colon, separated
            by commas. Several whole numbers, such as widths, are separated by dashes.
        n_inputs: Number of inputs, given to classes that take it.
        coding: How inputs are coded, "bits" or "signs", given to classes that take it.

    Raises:
        ZooError: If there is no such class or setting, a value is wrong, or the map has another number of inputs.
    """
    name, _, words = text.partition(":")
    cls = _class(name)
    known = inspect.signature(cls).parameters
    settings: dict[str, Any] = {"n_inputs": n_inputs, "coding": coding}
    settings = {key: value for key, value in settings.items() if key in known}
    for word in filter(None, words.split(",")):
        key, equals, value = word.partition("=")
        if key not in known or key == "n_inputs" or not equals:
            names = ", ".join(k for k in known if k != "n_inputs") or "none"
            raise ZooError(f"map {text}: {word!r} is not setting=value of {name}; its settings are {names}")
        settings[key] = _value(value, known[key].default, f"map {text}: {key}")
    try:
        made = cls(**settings)
    except TypeError as error:
        raise ZooError(f"map {text} cannot be made: {error}") from None
    if made.n_inputs != n_inputs:
        raise ZooError(f"map {text} has {made.n_inputs} inputs; the study has n_inputs = {n_inputs}")
    return made


def _class(name: str) -> type[ParameterFunctionMap]:
    known = {
        key: cls
        for key, cls in vars(maps).items()
        if isinstance(cls, type) and issubclass(cls, ParameterFunctionMap) and not inspect.isabstract(cls)
    }
    found: Any = known.get(name)
    module, _, own = name.rpartition(".")
    if module:
        try:
            found = getattr(importlib.import_module(module), own, None)
        except ImportError as error:
            raise ZooError(f"the module of {name} cannot be imported: {error}") from None
    if not (isinstance(found, type) and issubclass(found, ParameterFunctionMap)):
        raise ZooError(f"there is no map {name!r}; the maps are {', '.join(known)}, or module.Class for your own class")
    return found


def _value(text: str, default: Any, where: str) -> Any:
    """Return a value of the type of the default."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, tuple):
            return tuple(int(word) for word in text.split("-") if word)
        return type(default)(text) if isinstance(default, int | float) else text
    except (ValueError, KeyError):
        kind = {bool: "true or false", tuple: "whole numbers such as 40-40", int: "a whole number"}
        raise ZooError(f"{where} is {text!r}; it must be {kind.get(type(default), 'a number')}") from None


def default_maps(n_inputs: int) -> tuple[str, ...]:
    """Return maps of about the same numbers of parameters: those of an MLP n-40-40-1, of all monomials, and of half.

    Args:
        n_inputs: Number n of inputs.
    """
    half = max(1, n_inputs // 2)
    found = ["MLP:widths=40-40"]
    for size in (MLP(n_inputs).n_parameters, 2**n_inputs, Polynomial(n_inputs, half).n_parameters):
        gates = max(1, round(size / 3 - 1))
        width = ceil((2 * gates) ** 0.5)
        if len(found) > 1:
            found.append(f"MLP:widths={max(1, round((size - 1) / (n_inputs + 2)))}")
            found.append(f"Polynomial:degree={n_inputs if size == 2**n_inputs else half}")
        found.append(f"RandomFourier:n_waves={max(1, round(size / (n_inputs + 2)))}")
        found.append(f"BooleanMachine:width={width},n_layers={max(1, round(gates / width))}")
    found += ["LinearThreshold", "LinearThreshold:bias=false", "RandomTable"]
    return tuple(dict.fromkeys(found))


def same_size(one: ParameterFunctionMap, other: ParameterFunctionMap) -> bool:
    """Return whether two maps have about the same number of parameters, to 15 percent of the larger number."""
    a, b = one.n_parameters, other.n_parameters
    return abs(a - b) <= SAME * max(a, b)
