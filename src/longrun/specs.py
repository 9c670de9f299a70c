"""Spec files: TOML to the frozen dataclasses of ``model``, with errors that name file and key."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import types
import typing
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

from longrun.errors import SpecError
from longrun.model import (
    Base,
    BaseLock,
    Check,
    ImageSpec,
    Interpreter,
    Library,
    Lock,
    Package,
    Release,
    System,
    Toolchain,
)

T = TypeVar("T")

KINDS: dict[str, type[Any]] = {
    "releases": Release,
    "interpreters": Interpreter,
    "libraries": Library,
    "toolchains": Toolchain,
    "packages": Package,
    "checks": Check,
    "systems": System,
    "bases": Base,
    "images": ImageSpec,
}
"""Directory below ``specs/`` to the type of its files."""

MATRIX = "tests/matrix"
"""Where the programs of checks are."""

LATER = ("packages", "checks", "systems", "bases", "images")
"""Kinds that are read when they are asked for: there are many, and few commands need them."""


@dataclass(frozen=True, kw_only=True)
class Specs:
    """Every spec of a checkout, by name."""

    root: Path
    releases: Mapping[str, Release]
    interpreters: Mapping[str, Interpreter]
    libraries: Mapping[str, Library]
    toolchains: Mapping[str, Toolchain]

    @cached_property
    def packages(self) -> Mapping[str, Package]:
        """The curated packages; read when a layer is asked for, since there are many."""
        packages = _load_directory(self.root, "packages", Package)
        check_packages(packages)
        return packages

    @cached_property
    def checks(self) -> Mapping[str, Check]:
        """The checks of the matrix; each has its program below ``tests/matrix``."""
        checks = _load_directory(self.root, "checks", Check)
        check_checks(self, checks)
        return checks

    @cached_property
    def systems(self) -> Mapping[str, System]:
        """The systems that checks run in, beside the machine itself."""
        return _load_directory(self.root, "systems", System)

    @cached_property
    def bases(self) -> Mapping[str, Base]:
        """What images stand on."""
        return _load_directory(self.root, "bases", Base)

    @cached_property
    def images(self) -> Mapping[str, ImageSpec]:
        """The container images."""
        images = _load_directory(self.root, "images", ImageSpec)
        check_images(self, images)
        return images

    def base_lock_path(self, name: str) -> Path:
        """Where the lock of a base is, whether it exists or not."""
        return self.root / "specs" / "locks" / "bases" / f"{name}.lock.toml"

    def base_lock(self, name: str) -> BaseLock | None:
        """The lock of a base, or None where there is none yet."""
        path = self.base_lock_path(name)
        if not path.is_file():
            return None
        label = path.relative_to(self.root).as_posix()
        return parse_spec(path.read_text(encoding="utf-8"), BaseLock, label)

    def lock_path(self, release: str, tag: str) -> Path:
        """Where the lock of an interpreter is, whether it exists or not."""
        return self.root / "specs" / "locks" / release / f"{tag}.lock.toml"

    def lock(self, release: str, tag: str) -> Lock | None:
        """The lock of an interpreter (``cp313``), or None where there is none yet."""
        path = self.lock_path(release, tag)
        if not path.is_file():
            return None
        label = path.relative_to(self.root).as_posix()
        return parse_spec(path.read_text(encoding="utf-8"), Lock, label)


def load_specs(root: Path) -> Specs:
    """Read and check all spec files of the checkout at ``root``; SpecError names what is wrong."""
    found = {
        kind: _load_directory(root, kind, type_)
        for kind, type_ in KINDS.items()
        if kind not in LATER
    }
    specs = Specs(root=root, **found)
    _check_references(specs)
    return specs


def _load_directory(root: Path, kind: str, type_: type[T]) -> dict[str, T]:
    found: dict[str, T] = {}
    for path in sorted((root / "specs" / kind).glob("*.toml")):
        if path.name.endswith(".api.toml"):
            continue  # the audit's lists of names, see audit/
        label = path.relative_to(root).as_posix()
        spec = parse_spec(path.read_text(encoding="utf-8"), type_, label)
        name = spec.name  # type: ignore[attr-defined]
        if name != path.stem:
            raise SpecError(
                f"{label}: name: expected {path.stem!r} (the file's name), found {name!r}"
            )
        found[name] = spec
    return found


def parse_spec(text: str, type_: type[T], label: str) -> T:
    """One spec from TOML text; ``label`` names the file in errors."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{label}: not TOML: {error}") from error
    return _convert_table(table, type_, label, "")


def _convert_table(table: object, type_: type[T], label: str, key: str) -> T:
    if not isinstance(table, dict):
        raise _mismatch(label, key, "a table", table)
    fields = {field.name: field for field in dataclasses.fields(type_)}  # type: ignore[arg-type]
    for name in table:
        if name not in fields:
            raise _unknown(label, _join(key, name), name, list(fields))
    types_ = _hints(cast(Hashable, type_))
    values = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _convert(table[name], types_[name], label, _join(key, name))
        elif field.default is field.default_factory is dataclasses.MISSING:
            expected = describe(types_[name])
            raise SpecError(f"{label}: {_join(key, name)}: expected {expected}, found nothing")
    return type_(**values)


@cache
def _hints(type_: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(type_)


def _convert(value: object, type_: Any, label: str, key: str) -> Any:
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is types.UnionType:
        return _convert(value, arguments[0], label, key)
    if dataclasses.is_dataclass(type_):
        return _convert_table(value, type_, label, key)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, list):
            raise _mismatch(label, key, describe(type_), value)
        items = enumerate(value)
        return tuple(_convert(item, arguments[0], label, f"{key}[{i}]") for i, item in items)
    if origin is dict:
        if not isinstance(value, dict):
            raise _mismatch(label, key, describe(type_), value)
        return {k: _convert(v, arguments[1], label, _join(key, k)) for k, v in value.items()}
    if type(value) is not type_:
        raise _mismatch(label, key, describe(type_), value)
    return value


def describe(type_: Any) -> str:
    """A type of the model in the words of an error message."""
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is tuple:
        return f"a list, each {describe(arguments[0])}"
    if origin is dict:
        return "a table of strings"
    if origin is types.UnionType:
        return describe(arguments[0])
    words = {str: "a string", int: "a whole number", bool: "true or false", list: "a list"}
    return words.get(type_, "a table")


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _mismatch(label: str, key: str, expected: str, found: object) -> SpecError:
    shown = "a table" if isinstance(found, dict) else repr(found)
    return SpecError(f"{label}: {key}: expected {expected}, found {shown}")


def near(name: str, known: list[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest known name, or nothing."""
    matches = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def _unknown(label: str, key: str, name: str, known: list[str]) -> SpecError:
    return SpecError(
        f"{label}: {key}: unknown key{near(name, known)}",
        remedy=f"known keys: {', '.join(known)}",
    )


def _check_references(specs: Specs) -> None:
    libraries = list(specs.libraries)
    for library in specs.libraries.values():
        label = f"specs/libraries/{library.name}.toml"
        _check_names(label, "inputs", library.inputs, libraries)
        _check_source(label, "source", library.source)
        _check_patches(specs.root, label, "build.patches", library.build.patches)
    for toolchain in specs.toolchains.values():
        _check_source(f"specs/toolchains/{toolchain.name}.toml", "source", toolchain.source)
    for interpreter in specs.interpreters.values():
        label = f"specs/interpreters/{interpreter.name}.toml"
        _check_names(label, "libraries", interpreter.libraries, libraries)
        _check_source(label, "source", interpreter.source)
        _check_patches(specs.root, label, "patches", interpreter.patches)
        for position, series in enumerate(interpreter.series):
            _check_source(label, f"series[{position}].source", series.source)
    for release in specs.releases.values():
        label = f"specs/releases/{release.name}.toml"
        _check_names(label, "interpreters", release.interpreters, list(specs.interpreters))
        _check_names(label, "toolchain", (release.toolchain,), list(specs.toolchains))
        if not release.interpreters:
            raise SpecError(f"{label}: interpreters: expected at least one, found none")
        for name, layer in release.layers.items():
            _check_names(label, f"layers.{name}.includes", layer.includes, list(release.layers))
    _check_cycles(specs)


def check_packages(packages: Mapping[str, Package]) -> None:
    """What one spec of a package says by itself; SpecError names file and key."""
    for name, package in packages.items():
        label = f"specs/packages/{name}.toml"
        if name != normalised(name):
            raise SpecError(
                f"{label}: name: expected {normalised(name)!r} (normalised as in PEP 503), "
                f"found {name!r}"
            )
        _check_constraint(label, "constraint", package.constraint)
        for tag, constraint in package.constraints.items():
            _check_constraint(label, f"constraints.{tag}", constraint)
        for position, brought in enumerate(package.brings):
            if brought != normalised(brought):
                raise SpecError(
                    f"{label}: brings[{position}]: expected {normalised(brought)!r} "
                    f"(normalised as in PEP 503), found {brought!r}"
                )


def check_checks(specs: Specs, checks: Mapping[str, Check]) -> None:
    """What specs of checks name must be there; SpecError names file and key."""
    tags = {interpreter.tag for interpreter in specs.interpreters.values()}
    layers = {name for release in specs.releases.values() for name in release.layers}
    systems = {"host", *specs.systems}
    for name, check in checks.items():
        label = f"specs/checks/{name}.toml"
        if not (specs.root / MATRIX / check.program).is_file():
            raise SpecError(
                f"{label}: name: expected a program {MATRIX}/{check.program}, found none",
                remedy=f"write {MATRIX}/{check.program}; see {MATRIX}/README.md",
            )
        _check_names(label, "layer", (check.layer,), sorted(layers))
        if not check.proves:
            raise SpecError(f"{label}: proves: expected at least one distribution, found none")
        for key, number in (("timeout", check.timeout), ("attempts", check.attempts)):
            if number < 1:
                raise SpecError(f"{label}: {key}: expected 1 or more, found {number}")
        for position, gap in enumerate(check.gaps):
            at = f"gaps[{position}]"
            _check_names(label, f"{at}.interpreters", gap.interpreters, sorted(tags))
            _check_names(label, f"{at}.systems", gap.systems, sorted(systems))
            if not gap.shows:
                raise SpecError(f"{label}: {at}.shows: expected words of its log, found ''")


def check_images(specs: Specs, images: Mapping[str, ImageSpec]) -> None:
    """What specs of images name must be there; SpecError names file and key."""
    layers = sorted({name for release in specs.releases.values() for name in release.layers})
    for name, image in images.items():
        label = f"specs/images/{name}.toml"
        _check_names(label, "base", (image.base,), list(specs.bases))
        _check_names(label, "layer", (image.layer,), layers)
        for path, template in image.files.items():
            if not (specs.root / "images" / template).is_file():
                raise SpecError(
                    f"{label}: files.{path}: expected a file below images/, found {template!r}"
                )


def _check_constraint(label: str, key: str, constraint: str) -> None:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        SpecifierSet(constraint)
    except InvalidSpecifier as error:
        raise SpecError(
            f"{label}: {key}: expected versions as in PEP 440, such as '>=3.5,<4', "
            f"found {constraint!r}"
        ) from error


def normalised(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _check_names(label: str, key: str, names: tuple[str, ...], known: list[str]) -> None:
    for position, name in enumerate(names):
        if name not in known:
            raise SpecError(
                f"{label}: {key}[{position}]: expected the name of a spec, "
                f"found {name!r}{near(name, known)}"
            )


def _check_source(label: str, key: str, source: Any) -> None:
    if len(source.sha256) != 64 or set(source.sha256) - set("0123456789abcdef"):
        raise SpecError(
            f"{label}: {key}.sha256: expected 64 lower-case hexadecimal digits, "
            f"found {source.sha256!r}"
        )
    if source.size <= 0:
        raise SpecError(f"{label}: {key}.size: expected a size in bytes, found {source.size}")
    if "/" in source.file or source.file.startswith("."):
        raise SpecError(f"{label}: {key}.file: expected a file name, found {source.file!r}")
    if not (source.urls or source.pool or source.index):
        raise SpecError(f"{label}: {key}: expected `urls`, `pool` or `index`, found none of them")


def _check_patches(root: Path, label: str, key: str, patches: tuple[str, ...]) -> None:
    for position, patch in enumerate(patches):
        path = root / "patches" / patch
        if not path.is_file():
            siblings = [item.name for item in path.parent.glob("*.patch")]
            raise SpecError(
                f"{label}: {key}[{position}]: expected a file below patches/, "
                f"found {patch!r}{near(path.name, siblings)}"
            )


def _check_cycles(specs: Specs) -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            raise SpecError(
                f"specs/libraries/{name}.toml: inputs: goes round in a circle: {circle}"
            )
        if name not in done:
            for needed in specs.libraries[name].inputs:
                visit(needed, (*path, name))
            done.add(name)

    for name in specs.libraries:
        visit(name, ())
