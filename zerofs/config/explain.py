"""One line for a person about what is wrong in a configuration document. Pure; shows names and types, never values."""

import difflib
from typing import Any

from zerofs.config import schema

Location = tuple[int | str, ...]

_EXPECTED = {
    "string_type": "must be text in quotes",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "model_type": "must be a table",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than 0",
}

_TYPE_NAMES = {
    bool: "true or false",
    str: "text",
    int: "a number",
    float: "a number",
    dict: "a table",
    list: "a list",
}


def place(name: str) -> str:
    """A dotted name as people look for it: `cache.dir` is `[cache] dir`."""
    table, _, key = name.rpartition(".")
    return f"[{table}] {key}" if table else key


def explain(kind: str, location: Location, message: str, document: dict[str, Any]) -> str:
    """The line for one validation problem: `kind` and `message` as pydantic names it, `location` in `document`."""
    name = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        return _unknown(location, document)
    where = f"[{name}]" if _table_at(location) else place(name)
    if kind == "missing":
        return f"{where} is missing"
    expected = _EXPECTED.get(kind, message)
    if kind.endswith("_type"):
        found = type(_value_at(location, document))
        return f"{where} {expected}, not {_TYPE_NAMES.get(found, 'a date or time')}"
    return f"{where} {expected}"


def _table_at(location: Location) -> type[schema.Table] | None:
    """The table at `location`, or None where a key is."""
    model: type[schema.Table] = schema.Document
    for part in location:
        kind = model.model_fields[str(part)].annotation
        if not (isinstance(kind, type) and issubclass(kind, schema.Table)):
            return None
        model = kind
    return model


def _value_at(location: Location, document: dict[str, Any]) -> Any:
    value: Any = document
    for part in location:
        value = value[part]
    return value


def _unknown(location: Location, document: dict[str, Any]) -> str:
    """An unknown table or key, with the nearest known one: in the same table if one is near, else anywhere."""
    name = ".".join(str(part) for part in location)
    if isinstance(_value_at(location, document), dict):
        nearest = difflib.get_close_matches(name, schema.tables(), n=1, cutoff=0.0)[0]
        return f"there is no table [{name}]; the nearest known one is [{nearest}]"
    table, _, key = name.rpartition(".")
    parent = _table_at(location[:-1])
    assert parent is not None
    siblings = [item.name for item in schema.keys(parent)]
    homes = {item.name: other for other, kind in schema.tables().items() for item in schema.keys(kind)}
    complaint = f'[{table}] has no key "{key}"' if table else f'there is no key "{key}" outside a table'
    for candidates, cutoff in ((siblings, 0.6), (list(homes), 0.75), (siblings, 0.0), (list(homes), 0.0)):
        near = difflib.get_close_matches(key, candidates, n=1, cutoff=cutoff)
        if near:
            home = table if candidates is siblings else homes[near[0]]
            return f'{complaint}; the nearest known one is "{near[0]}" in [{home}]'
    raise AssertionError("every list of known keys is non-empty")
