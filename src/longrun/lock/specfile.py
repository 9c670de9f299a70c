"""Package specs as text: new ones, and edits that keep comments and order."""

from __future__ import annotations

import re
from collections.abc import Iterable

from longrun.lock.lockfile import quoted
from longrun.model import Package

SCHEMA = "#:schema ../schema/package.schema.json"
WIDTH = 100


def new_spec(package: Package) -> str:
    """The text of a new package's spec."""
    lines = [SCHEMA]
    lines += [
        f"{key} = {quoted(getattr(package, key))}" for key in ("name", "layer", "why", "owner")
    ]
    if package.constraint:
        lines.append(f"constraint = {quoted(package.constraint)}")
    for key in ("interpreters", "extras", "imports", "brings"):
        values = getattr(package, key)
        if values:
            lines += f"{key} = {_array(key, values)}".split("\n")
    if package.build:
        lines += ["", "[build]", f"requires = {_array('requires', package.build.requires)}"]
    return "\n".join(lines) + "\n"


def _array(key: str, values: Iterable[str]) -> str:
    """An array on one line, or one item to a line where that is too long: then diffs are small."""
    items = [quoted(value) for value in values]
    line = f"[{', '.join(items)}]"
    if len(key) + 3 + len(line) <= WIDTH:
        return line
    return "\n".join(["[", *(f"    {item}," for item in items), "]"])


def with_brings(text: str, names: tuple[str, ...]) -> str:
    """A spec's text with other names under `brings`."""
    import tomlkit  # 20 ms that only an edit needs

    document = tomlkit.parse(text)
    if not names:
        document.pop("brings", None)
        return tomlkit.dumps(document)
    line = f"brings = {_array('brings', names)}\n"
    old = document.get("brings")
    if old is None:
        return _behind(text, "imports", document["imports"].as_string(), line)
    if "#" in old.as_string():
        _edit(old, names)
    else:
        document["brings"] = tomlkit.parse(line)["brings"]
    return tomlkit.dumps(document)


def _behind(text: str, key: str, value: str, line: str) -> str:
    """A text with a line behind that of a key, of which ``value`` is the text of the value.

    tomlkit itself would put it below the comment that belongs to the next table.
    """
    start = next(re.finditer(rf"(?m)^{key}\s*=", text)).end()
    end = text.find("\n", text.index(value, start) + len(value))
    if end < 0:
        return f"{text}\n{line}"
    return f"{text[: end + 1]}{line}{text[end + 1 :]}"


def _edit(array: object, names: tuple[str, ...]) -> None:
    """Change an array that has comments item by item, so that they stay."""
    from tomlkit.items import Array

    assert isinstance(array, Array)
    for name in [name for name in array if name not in names]:
        array.remove(name)
    for name in names:
        if name not in array:
            later = [i for i, known in enumerate(array) if known > name]
            array.insert(later[0] if later else len(array), name)
