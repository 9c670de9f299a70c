"""One builder per kind of step: each fills ``job.out`` or raises."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from longrun.steps.job import Job

if TYPE_CHECKING:
    from longrun.engine import Engines
    from longrun.fetch import Fetcher


def builders(fetcher: Fetcher, engines: Engines) -> dict[str, Callable[[Job], None]]:
    """The builder of each kind; ``fetcher`` gets the sources, ``engines`` run checks."""
    # HTTP and all the builders: nothing that a build with nothing to do needs
    from longrun.steps import (
        archive,
        base,
        check,
        image,
        imports,
        interpreter,
        layer,
        library,
        part,
        prefix,
        source,
        system,
        toolchain,
        wheel,
    )

    return {
        "source": partial(source.build, fetcher=fetcher),
        "toolchain": toolchain.build,
        "library": library.build,
        "interpreter": interpreter.build,
        "prefix": prefix.build,
        "wheel": wheel.build,
        "layer": layer.build,
        "archive": archive.build,
        "system": partial(system.build, archives=fetcher.hosts.archives, offline=fetcher.offline),
        "imports": imports.build,
        "base": partial(base.build, archives=fetcher.hosts.archives, offline=fetcher.offline),
        "part": part.build,
        "image": image.build,
        "check": partial(check.build, engines=engines),
    }
