"""Bases that a container engine has to make: their Containerfiles, from templates in ``images/``.

Rendering needs neither an engine nor a registry; all that comes of it, does.
"""

from __future__ import annotations

from pathlib import Path

from longrun.errors import SpecError, UsageError
from longrun.model import Base
from longrun.oci.reference import parse_reference
from longrun.specs import near

BUILT_HERE = "debian"
TEMPLATES = {"almalinux": "almalinux-9.Containerfile.j2"}
"""Family of a base to its template below ``images/``."""

INSTALL = {
    "dnf": "dnf -y --nodocs --setopt=install_weak_deps=False",
    "microdnf": "microdnf -y --nodocs --setopt=install_weak_deps=0",
}
"""Package managers, by a base's variant, with what keeps the image small."""

OF_ALMALINUX = ("baseos", "appstream", "crb", "extras")
"""Repositories that AlmaLinux's images know; another comes with its package ``NAME-release``."""


def render(root: Path, base: Base, origin: str) -> str:
    """The Containerfile of a base upon the image that ``origin`` names, with its digest."""
    import jinja2  # nothing that a base of packages needs

    template = TEMPLATES[family_of(base)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(root / "images"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - no markup
    )
    enabled = [name for name in base.components if name in OF_ALMALINUX]
    words = [INSTALL[manager_of(base)], *(f"--enablerepo={name}" for name in enabled), "install"]
    return environment.get_template(template).render(
        base=base,
        origin=pinned(base, origin),
        install=" ".join(words),
        extra=[name for name in base.components if name not in OF_ALMALINUX],
    )


def family_of(base: Base) -> str:
    """The family of a base; SpecError for one that there is not."""
    known = [BUILT_HERE, *TEMPLATES]
    if base.family not in known:
        raise SpecError(
            f"specs/bases/{base.name}.toml: family: expected one of {', '.join(known)}, "
            f"found {base.family!r}{near(base.family, known)}"
        )
    return base.family


def manager_of(base: Base) -> str:
    """The package manager of a base; SpecError for one that there is not."""
    if base.variant not in INSTALL:
        raise SpecError(
            f"specs/bases/{base.name}.toml: variant: expected one of {', '.join(INSTALL)}, "
            f"found {base.variant!r}{near(base.variant, list(INSTALL))}"
        )
    return base.variant


def pinned(base: Base, origin: str) -> str:
    """The image that a base begins from, as it was given; UsageError without its digest."""
    example = f"docker.io/library/{base.family}:{base.suite}"
    remedy = (
        f"--from {example}@sha256:...; skopeo inspect --format '{{{{.Digest}}}}' docker://{example}"
    )
    if not origin:
        raise UsageError("--render: which image it begins from is not said", remedy=remedy)
    if not parse_reference(origin).digest:
        raise UsageError(f"--from {origin}: its digest is missing: a tag moves", remedy=remedy)
    return origin
