"""An image: a base and layers upon it, as an OCI layout whose blobs are links to their entries."""

from __future__ import annotations

from longrun.model import Built
from longrun.oci.image import blob_path, pack, write_layout
from longrun.oci.model import Image, ImageConfig, LayerBlob
from longrun.steps.blob import read
from longrun.steps.job import Job

PATH = ("/usr/local/bin", "/usr/bin", "/bin")


def build(job: Job) -> None:
    """Make ``job.out`` the layout of the image; nothing is compressed or copied."""
    spec = job.spec
    assert isinstance(spec, Built)
    layers = tuple(read(tree) for tree in job.inputs.values())
    write_layout(pack(image_of(spec, layers)), job.out, (spec.reference,))
    for layer in layers:
        job.known[blob_path(layer.digest)] = layer.digest.removeprefix("sha256:")


def image_of(spec: Built, layers: tuple[LayerBlob, ...]) -> Image:
    """The image of a spec upon its layers, the base's first."""
    image = spec.image

    def filled(words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(word.replace("{python}", spec.python) for word in words)

    config = ImageConfig(
        created=f"{spec.created}T00:00:00Z",
        user=image.user,
        env={"PATH": ":".join([*spec.paths, *PATH]), **image.env},
        entrypoint=filled(image.entrypoint),
        command=filled(image.command),
        workdir=image.workdir,
        labels=spec.labels,
        healthcheck=filled(image.health),
    )
    return Image(config=config, layers=layers, annotations=spec.labels)
