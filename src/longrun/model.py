"""The data of Longrun: what spec files say, as frozen dataclasses.

A field whose metadata has ``key=False`` documents or locates something and cannot change an output:
it stays out of the step's key, so editing it rebuilds nothing. Every field's ``doc`` ends up in the
JSON schema and in ``docs/reference/specs.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SDIST = "sdist"
"""What stands for the tag of a distribution that is not a wheel."""


def doc(text: str, *, key: bool = True, **kwargs: Any) -> Any:
    """A dataclass field with its documentation; ``key=False`` keeps it out of step keys."""
    return field(metadata={"doc": text, "key": key}, **kwargs)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A detached signature of a source, checked where the tool that checks it is installed."""

    kind: str = doc("`asc` (OpenPGP, checked with gpgv) or `sigstore` (checked with cosign).")
    url: str = doc("Where the signature file is.")
    pool: tuple[str, ...] = doc("Paths of the signature file in a Debian archive.", default=())
    keyring: str = doc("Keyring file below `specs/keys/` (asc).", default="")
    identity: str = doc("The signer's identity (sigstore).", default="")
    issuer: str = doc("The identity's OIDC issuer (sigstore).", default="")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file from outside, pinned by its sha256; that alone is its key."""

    file: str = doc("File name, as it is kept in the store.", key=False)
    sha256: str = doc("sha256 of the file, 64 lower-case hexadecimal digits.")
    size: int = doc("Size of the file in bytes.", key=False)
    urls: tuple[str, ...] = doc(
        "Upstream addresses of exactly these bytes, best first.", key=False, default=()
    )
    pool: tuple[str, ...] = doc(
        "Paths of exactly these bytes in a Debian archive (`pool/main/...`); the hosts come "
        "from the machine's apt sources and from the user's configuration.",
        key=False,
        default=(),
    )
    index: str = doc(
        "Requirement (`name==version`) that fetches this file from the Python package index which "
        "pip is configured for.",
        key=False,
        default="",
    )
    repacked: str = doc(
        "Why these bytes are not upstream's own, where they are not.", key=False, default=""
    )
    signature: Signature | None = doc("Upstream's signature.", key=False, default=None)


@dataclass(frozen=True, kw_only=True)
class Build:
    """How a source becomes a library: commands, run one after another in the unpacked source.

    Placeholders in commands and in values of ``env``: ``{out}`` the directory to install below,
    ``{arch}`` the processor (`x86_64`), ``{triple}`` its GNU triple (`x86_64-linux-gnu`),
    ``{host}`` the triple of the building machine, ``{deps}`` the merged files of all inputs,
    ``{source}`` the unpacked source, ``{python}`` the Python that runs Longrun.
    ``{{`` and ``}}`` are braces. No shell reads the commands.
    """

    commands: tuple[tuple[str, ...], ...] = doc(
        "Argument vectors, run in the unpacked source. Libraries configure with `--prefix=/usr` "
        "and install with `DESTDIR={out}`."
    )
    directory: str = doc("Subdirectory of the source to run them in.", default="")
    env: dict[str, str] = doc("Additional environment variables.", default_factory=dict)
    patches: tuple[str, ...] = doc("Patch files below `patches/`, applied in order.", default=())
    remove: tuple[str, ...] = doc("Installed paths (globs) to delete before the check.", default=())
    expects: tuple[str, ...] = doc("Paths that must exist in the result, such as `lib/libz.a`.")
    licences: tuple[str, ...] = doc(
        "The source's licence files (globs), kept in `share/licenses/`; each must match.",
        default=("COPYING",),
    )


@dataclass(frozen=True, kw_only=True)
class Library:
    """A native library, built static, position independent and hidden."""

    name: str = doc("Name of the library; also of its file.")
    version: str = doc("Upstream's version.")
    licence: str = doc("SPDX licence expression.", key=False)
    summary: str = doc("What it is for, in one line.", key=False)
    homepage: str = doc("Where upstream lives.", key=False, default="")
    notes: str = doc("Choices that a maintainer should know of.", key=False, default="")
    inputs: tuple[str, ...] = doc("Libraries that it is compiled against, by name.", default=())
    tools: tuple[str, ...] = doc(
        "Programs of the system that its build needs.", key=False, default=()
    )
    source: Source = doc("The source archive.")
    build: Build = doc("How it is built.")


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """The compiler, linker and C library stubs, pinned by one sha256."""

    name: str = doc("Name of the toolchain; also of its file.")
    version: str = doc("Upstream's version.")
    licence: str = doc("SPDX licence expression.", key=False)
    summary: str = doc("What it is, in one line.", key=False)
    homepage: str = doc("Where upstream lives.", key=False, default="")
    source: Source = doc("The wheel that holds it.")
    cflags: tuple[str, ...] = doc("Flags that every compilation gets.", default=())
    ldflags: tuple[str, ...] = doc("Flags that every link gets.", default=())


@dataclass(frozen=True, kw_only=True)
class PatchSeries:
    """Patches taken by name from an archive that is fetched, such as a distribution's backports."""

    name: str = doc("Name of the series.", key=False)
    source: Source = doc("The archive that holds the patches.")
    directory: str = doc("Directory of the patches inside the archive.")
    patches: tuple[str, ...] = doc("File names of the patches, in the order of application.")


@dataclass(frozen=True, kw_only=True)
class Lifecycle:
    """Until when something is kept."""

    released: str = doc("First day of service, ISO date.", key=False)
    end_of_life: str = doc("Last day of service, ISO date.", key=False)


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A CPython and everything that is compiled into it."""

    name: str = doc("`cpython-` and the minor version; also the name of its file.")
    version: str = doc("Upstream's version.")
    licence: str = doc("SPDX licence expression.", key=False)
    homepage: str = doc("Where upstream lives.", key=False, default="")
    notes: str = doc("Choices that a maintainer should know of.", key=False, default="")
    lifecycle: Lifecycle = doc("Upstream's dates.", key=False)
    source: Source = doc("The source archive.")
    libraries: tuple[str, ...] = doc("Native libraries that it is linked with, by name.")
    tools: tuple[str, ...] = doc(
        "Programs of the system that its build needs.", key=False, default=()
    )
    patches: tuple[str, ...] = doc("Patch files below `patches/`, applied in order.", default=())
    series: tuple[PatchSeries, ...] = doc("Fetched patch series, applied first.", default=())
    configure: tuple[str, ...] = doc("Options for configure.", default=())
    cflags: tuple[str, ...] = doc("Optimisation flags.", default=())
    env: dict[str, str] = doc(
        "Additional environment variables of configure.", default_factory=dict
    )
    modules: tuple[str, ...] = doc(
        "Every extension module that must be there after the build, and in the prefix no other."
    )
    test_modules: tuple[str, ...] = doc(
        "Extension modules that only CPython's own tests need: built, not shipped.", default=()
    )
    exclude: tuple[str, ...] = doc("Globs below the prefix that are not shipped.", default=())
    ignored_tests: dict[str, str] = doc(
        "Single tests of CPython's own suite that are not run (names or patterns), and why.",
        key=False,
        default_factory=dict,
    )
    known_failures: dict[str, str] = doc(
        "Files of CPython's own test suite with a test that fails here by design, and why.",
        key=False,
        default_factory=dict,
    )

    @property
    def tag(self) -> str:
        """The interpreter tag of PEP 425, such as ``cp313``."""
        major, minor = self.version.split(".")[:2]
        return f"cp{major}{minor}"


@dataclass(frozen=True, kw_only=True)
class Floor:
    """The oldest platform that a release runs on."""

    arch: str = doc("Processor, as PEP 600 writes it: `x86_64`, `aarch64`.")
    glibc: str = doc("Oldest glibc, such as `2.28`.")

    @property
    def tag(self) -> str:
        """The platform tag (PEP 600), such as ``manylinux_2_28_x86_64``."""
        return f"manylinux_{self.glibc.replace('.', '_')}_{self.arch}"

    @property
    def triple(self) -> str:
        """The GNU triple, such as ``x86_64-linux-gnu``."""
        return f"{self.arch}-linux-gnu"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A part of the stack that is installed as one; see ``Package.layer``."""

    summary: str = doc("Whom it is for, in one line.", key=False)
    includes: tuple[str, ...] = doc("Layers that it builds on, by name.", default=())


@dataclass(frozen=True, kw_only=True)
class Release:
    """What one release ships."""

    name: str = doc("Name of the release, such as `2026.1`; also of its file.")
    date: str = doc("Date of the release, ISO; the time stamp of everything in it.")
    lifecycle: Lifecycle = doc("How long the release is kept.", key=False)
    floor: Floor = doc("The oldest platform.")
    toolchain: str = doc("Toolchain, by name.")
    interpreters: tuple[str, ...] = doc("Interpreters by name; the first is the default.")
    layers: dict[str, Layer] = doc("Layers of the stack, by name.", default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FromSdist:
    """How a package of which the index has no wheel is built, without network, for the floor."""

    requires: tuple[str, ...] = doc(
        "Requirements (PEP 508) of its build. They are locked with the stack, and taken from it "
        "where it has them."
    )
    env: dict[str, str] = doc("Additional environment variables.", default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Package:
    """One curated package of the stack."""

    name: str = doc("Normalised name (PEP 503) on the index; also of its file.")
    layer: str = doc("The layer that it belongs to; those that include it have it, too.")
    why: str = doc("Why it is here: what a control room does with it.", key=False)
    owner: str = doc("Who answers for it.", key=False)
    constraint: str = doc("Versions that may be locked (PEP 440), such as `>=3.5,<4`.", default="")
    constraints: dict[str, str] = doc(
        "In place of `constraint`, by interpreter tag (`cp311`), where they differ.",
        default_factory=dict,
    )
    interpreters: tuple[str, ...] = doc(
        "Tags of the interpreters that have it (`cp313`); all of the release's without.", default=()
    )
    extras: tuple[str, ...] = doc("Its extras that are wanted.", default=())
    imports: tuple[str, ...] = doc(
        "Its check: modules that must import in the finished prefix, each in a process of its own.",
        key=False,
    )
    exclude: tuple[str, ...] = doc(
        "Files of its wheel that are not installed (globs below site-packages), such as libraries "
        "for other processors; each must match.",
        default=(),
    )
    clean_runpath: tuple[str, ...] = doc(
        "Libraries of its wheel (globs below site-packages) whose RPATH or RUNPATH loses the "
        "entries that lead out of the prefix; each must match.",
        default=(),
    )
    brings: tuple[str, ...] = doc(
        "Distributions that were accepted to come along with it; `lock` refuses any other.",
        key=False,
        default=(),
    )
    build: FromSdist | None = doc("How it is built where there is no wheel.", default=None)

    def constraint_for(self, tag: str) -> str:
        """The versions that may be locked for an interpreter."""
        return self.constraints.get(tag, self.constraint)

    def is_for(self, tag: str) -> bool:
        """Whether an interpreter has it."""
        return not self.interpreters or tag in self.interpreters


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A check that is known not to pass somewhere, and why."""

    interpreters: tuple[str, ...] = doc("Interpreter tags (`cp313`); all without.", default=())
    systems: tuple[str, ...] = doc("Systems by name (`host`, `bookworm`); all without.", default=())
    since: str = doc("Since when it is known: the version of the library, and an ISO date.")
    why: str = doc("The cause, and what a user does about it.")
    link: str = doc("Upstream's issue, or the page that tells more.")
    shows: str = doc(
        "Words that the log of this failure has. A failure without them is another one, and counts."
    )

    def is_for(self, tag: str, system: str) -> bool:
        """Whether it is about an interpreter in a system."""
        return (not self.interpreters or tag in self.interpreters) and (
            not self.systems or system in self.systems
        )


@dataclass(frozen=True, kw_only=True)
class Check:
    """A round trip with a controls library: `tests/matrix/check_<name>.py`, dashes as `_`."""

    name: str = doc("Name of the check; also of its file, and of its program's.")
    title: str = doc("What it proves, in one line.", key=False)
    group: str = doc("The family that reports show it in, such as `EPICS`.", key=False)
    layer: str = doc("The layer that it runs in.")
    proves: tuple[str, ...] = doc(
        "Distributions that it is about; reports show their versions.", key=False
    )
    pair: bool = doc(
        "Whether it is about libraries together in one process.", key=False, default=False
    )
    needs: tuple[str, ...] = doc(
        "Programs of the system that it starts, such as `javac`; every system has them.", default=()
    )
    timeout: int = doc("Seconds after which it is killed.", default=120)
    attempts: int = doc(
        "How often it is run before it counts as failed; a pass after a failure shows as flaky.",
        default=2,
    )
    gaps: tuple[Gap, ...] = doc("Where it is known not to pass.", key=False, default=())

    @property
    def program(self) -> str:
        """Its file below ``tests/matrix``."""
        return f"check_{self.name.replace('-', '_')}.py"

    def gap(self, tag: str, system: str) -> Gap | None:
        """The known gap of an interpreter in a system."""
        return next((gap for gap in self.gaps if gap.is_for(tag, system)), None)


@dataclass(frozen=True, kw_only=True)
class System:
    """An operating system that checks run in: a root directory made of its packages."""

    name: str = doc("Name of its suite, such as `bookworm`; also of its file.")
    title: str = doc("Name for people, such as `Debian 12`.", key=False)
    glibc: str = doc("Version of its C library.")
    components: tuple[str, ...] = doc("Components of the archive.", default=("main",))
    packages: tuple[str, ...] = doc("Packages in it, beside the essential ones.")


@dataclass(frozen=True, kw_only=True)
class Base:
    """The system below images: packages of a Debian suite as one layer, locked by its digest.

    Of another family there is only the Containerfile, for an engine that has a registry.
    """

    name: str = doc("Name of the base, such as `debian-12-ci`; also of its file.")
    title: str = doc("Name for people, such as `Debian 12`.", key=False)
    # no key: no step is made of another family than the first
    family: str = doc(
        "`debian` is built here; `almalinux` is rendered as a Containerfile.",
        key=False,
        default="debian",
    )
    suite: str = doc("Suite of the archive, such as `bookworm`; AlmaLinux: the image's tag.")
    variant: str = doc(
        "`extract` has only the named packages and what they need, not set up and without a shell; "
        "`apt` has the essential ones and apt, set up. AlmaLinux: its package manager, `dnf` or "
        "`microdnf`."
    )
    components: tuple[str, ...] = doc(
        "Components of the archive. AlmaLinux: repositories beside those that its image enables.",
        default=("main",),
    )
    packages: tuple[str, ...] = doc("Packages in it.")


@dataclass(frozen=True, kw_only=True)
class BaseLock:
    """What a base is made of. Written by `base` alone."""

    name: str = doc("Name of the base.")
    digest: str = doc("Digest of the uncompressed layer (`sha256:...`); empty before it is known.")
    packages: dict[str, str] = doc("Packages with their versions.", key=False)


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """A container image: a base, and the prefixes of a layer of the stack upon it."""

    name: str = doc("Name of the image; also of its file.")
    summary: str = doc("What it is for, in one line.")
    base: str = doc("Its base, by name.")
    layer: str = doc("The layer of the stack in it.")
    together: bool = doc(
        "Whether all interpreters are in one image, side by side; else each has its own.",
        default=False,
    )
    user: str = doc("User and group that a container runs as, by number.", default="1000:1000")
    env: dict[str, str] = doc("Environment variables beside PATH.", default_factory=dict)
    entrypoint: tuple[str, ...] = doc(
        "What a container starts; `{python}` is the first interpreter's program."
    )
    command: tuple[str, ...] = doc("Its arguments where none are given.", default=())
    workdir: str = doc("Directory that it starts in.", default="/")
    health: tuple[str, ...] = doc(
        "Command that tells whether a container is well; `{python}` as above.", default=()
    )
    files: dict[str, str] = doc(
        "Files that it carries: path in the image to template below `images/`.",
        default_factory=dict,
    )


@dataclass(frozen=True, kw_only=True)
class BasePlan:
    """A base to be made, and what it must come out as."""

    base: Base = doc("The base.")
    compressor: str = doc("Step of the interpreter that compresses it.")
    digest: str = doc("Digest of its lock; empty where it is made anew.")
    locked: dict[str, str] = doc("Packages of its lock.", key=False, default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One layer of an image that is not its base: files of steps, below one directory."""

    title: str = doc("What it is, for the image's history.")
    compressor: str = doc("Step of the interpreter that compresses it.")
    of: tuple[str, ...] = doc("Steps whose files it holds.", default=())
    top: str = doc("Directory in the image, without the first `/`.", default="")
    only: tuple[str, ...] = doc("Paths of the inputs that it takes; all without.", default=())
    without: tuple[str, ...] = doc("Paths of the inputs that it leaves out.", default=())
    links: dict[str, str] = doc(
        "Symbolic links: path in the image to target.", default_factory=dict
    )
    texts: dict[str, str] = doc("Files: path in the image to content.", default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Built:
    """An image of a release."""

    image: ImageSpec = doc("The image.")
    base: str = doc("Digest of the base's layer.")
    created: str = doc("Date of the release.")
    labels: dict[str, str] = doc("Annotations (OCI).")
    paths: tuple[str, ...] = doc("Directories with programs, first of all.")
    python: str = doc("The first interpreter's program.")
    reference: str = doc("Name and tag.")


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """One file of the index, as a lock pins it."""

    name: str = doc("Normalised name (PEP 503).")
    version: str = doc("Its version.")
    file: str = doc("File name on the index: a wheel, or an sdist.")
    size: int = doc("Size of the file in bytes.")
    sha256: str = doc("sha256 of the file, 64 lower-case hexadecimal digits.")
    tag: str = doc("The wheel's best tag for the interpreter and the floor, or `sdist`.")
    licence: str = doc("What its metadata says of its licence.", default="")
    summary: str = doc("What its metadata says that it is.", default="")
    extras: tuple[str, ...] = doc("Its extras that are asked for.", default=())
    required_by: dict[str, str] = doc(
        "Who asks for it, and for which versions.", default_factory=dict
    )


@dataclass(frozen=True, kw_only=True)
class Lock:
    """The closure of the stack for one interpreter of a release. Written by `lock` alone."""

    release: str = doc("Name of the release.")
    interpreter: str = doc("Interpreter tag (PEP 425), such as `cp313`.")
    python: str = doc("Version of the interpreter that it was resolved for.")
    platform: str = doc("Platform tag (PEP 600) that it was resolved for.")
    distribution: tuple[Distribution, ...] = doc("What is installed.", default=())
    build: tuple[Distribution, ...] = doc(
        "What only builds from sdists need besides; nothing of it is installed.", default=()
    )


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """An interpreter with its libraries' data, relocated and sealed, for a release."""

    release: str = doc("Name of the release.")
    interpreter: Interpreter = doc("The interpreter.")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where one input of an archive comes from."""

    id: str = doc("Step, such as `library/openssl`.")
    version: str = doc("Upstream's version.")
    key: str = doc("Key of the step.")
    licence: str = doc("SPDX licence expression.")
    sha256: str = doc("sha256 of the source file.")
    urls: tuple[str, ...] = doc("Where the source file is.")
    patches: tuple[str, ...] = doc("Patches applied to it.")
    recipe: str = doc("sha256 of the code that built it.")


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A distribution as it is installed for one interpreter: the files below a prefix."""

    name: str = doc("Normalised name (PEP 503).")
    version: str = doc("Its version.")
    tag: str = doc("Interpreter tag (PEP 425), such as `cp313`.")
    build: FromSdist | None = doc("How it is built, where it comes from an sdist.", default=None)
    needs: tuple[str, ...] = doc("Distributions that its build needs.", default=())
    exclude: tuple[str, ...] = doc("Globs of what is not installed.", default=())
    clean_runpath: tuple[str, ...] = doc("Globs of what gets a clean RPATH.", default=())
    licence: str = doc("What its metadata says of its licence.", key=False, default="")
    source: Source = doc("The wheel or sdist.")


@dataclass(frozen=True, kw_only=True)
class LayerPrefix:
    """A prefix with the distributions of a layer, and of those that it includes."""

    release: str = doc("Name of the release.")
    layer: str = doc("Name of the layer.")
    interpreter: Interpreter = doc("The interpreter.")
    distributions: dict[str, str] = doc("What is installed: name to version.")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One check, with one interpreter, in one system."""

    check: Check = doc("The check.")
    release: str = doc("Name of the release.")
    interpreter: Interpreter = doc("The interpreter.", key=False)
    system: str = doc("Name of the system; `host` is the machine itself.")
    content: str = doc("What the system is: the digest of its root, or the host's own name.")
    versions: dict[str, str] = doc("The distributions that it proves, with their versions.")

    @property
    def tag(self) -> str:
        """The interpreter tag, such as ``cp313``."""
        return self.interpreter.tag


@dataclass(frozen=True, kw_only=True)
class Imports:
    """How long the packages of one interpreter take to import, each in its own layer."""

    release: str = doc("Name of the release.")
    interpreter: Interpreter = doc("The interpreter.", key=False)
    modules: dict[str, dict[str, str]] = doc(
        "By layer: the module that stands for each package, by the package's name."
    )


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A prefix as one file, with its manifest."""

    release: str = doc("Name of the release.")
    interpreter: str = doc("Name of the interpreter.")
    tag: str = doc("Interpreter tag (PEP 425), such as `cp313`.")
    layer: str = doc("Name of the layer; empty for the bare interpreter.", default="")
    provenance: tuple[Provenance, ...] = doc("Every input.")

    @property
    def stem(self) -> str:
        """File name without ending, less the platform."""
        return "-".join(filter(None, ("longrun", self.release, self.tag, self.layer)))


Spec = (
    Library
    | Toolchain
    | Interpreter
    | Prefix
    | Wheel
    | LayerPrefix
    | System
    | BasePlan
    | Part
    | Built
    | Cell
    | Imports
    | Archive
    | Source
)
