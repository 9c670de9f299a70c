"""Images as bytes, written as one tar and as a directory, and read again, tampered with or not."""

from __future__ import annotations

import errno
import io
import json
import shutil
import tarfile
from dataclasses import replace

import pytest
from oci_maker import CREATED, NOISE, make_config, make_image, make_layer

from longrun.errors import BuildError, SourceError
from longrun.oci import image as image_module
from longrun.oci.image import pack, write_archive, write_layout
from longrun.oci.model import Image
from longrun.oci.read import image_of, open_image, verify

NAMES = ("longrun/ci:2026.1-py313", "longrun/ci:latest")


@pytest.fixture
def image(tmp_path):
    return make_image(tmp_path / "layers", contents={"python": NOISE * 4})


@pytest.fixture
def layout(image, tmp_path):
    write_layout(image, tmp_path / "layout", NAMES)
    return tmp_path / "layout"


@pytest.fixture
def archive(image, tmp_path):
    write_archive(image, tmp_path / "image.tar", NAMES)
    return tmp_path / "image.tar"


def blob(layout, digest):
    return layout / "blobs/sha256" / digest.removeprefix("sha256:")


def refused(path, *words):
    with pytest.raises(SourceError) as caught:
        verify(open_image(path))
    for word in words:
        assert word in caught.value.message


def members(archive):
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def rewrite(archive, contents):
    with tarfile.open(archive, "w") as tar:
        for name, content in contents:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_the_configuration_says_all_that_engines_need(image):
    config = json.loads(image.config)
    assert config["config"]["Env"] == ["LC_ALL=C.UTF-8", "PATH=/opt/python/bin:/usr/bin"]
    assert config["config"]["User"] == "1000:1000"
    assert config["config"]["Healthcheck"]["Test"][0] == "CMD"
    assert config["config"]["Healthcheck"]["Interval"] == 30 * 10**9
    assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in image.layers]
    assert [entry["created_by"] for entry in config["history"]] == ["base", "python", "rest"]
    assert (config["created"], config["os"], config["architecture"]) == (CREATED, "linux", "amd64")


def test_what_is_empty_is_left_out(tmp_path):
    layers = (make_layer(tmp_path, "one"),)
    bare = Image(config=make_config(entrypoint=(), healthcheck=(), user=""), layers=layers)
    assert set(json.loads(pack(bare).config)["config"]) == {"Cmd", "Env", "Labels", "WorkingDir"}
    assert "annotations" not in json.loads(pack(bare).manifest)


def test_the_same_image_from_another_place_is_the_same_bytes(image, archive, tmp_path):
    again = make_image(tmp_path / "elsewhere", contents={"python": NOISE * 4})
    assert (again.digest, again.config_digest) == (image.digest, image.config_digest)
    write_archive(again, tmp_path / "again.tar", NAMES)
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()


def test_the_order_of_labels_does_not_count(image):
    first = Image(config=make_config(labels={"a": "1", "b": "2"}), layers=image.layers)
    second = Image(config=make_config(labels={"b": "2", "a": "1"}), layers=image.layers)
    assert pack(first).digest == pack(second).digest


def test_the_archive_is_a_layout_and_what_docker_loads(image, archive):
    contents = members(archive)
    (loaded,) = json.loads(contents["manifest.json"])
    assert loaded["RepoTags"] == list(NAMES)
    assert contents[loaded["Config"]] == image.config
    assert [contents[path] for path in loaded["Layers"]] == [
        layer.path.read_bytes() for layer in image.layers
    ]
    (entry,) = json.loads(contents["index.json"])["manifests"]
    assert entry["digest"] == image.digest
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "2026.1-py313"
    assert json.loads(contents["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


def test_nothing_of_the_builder_is_in_the_archive(archive):
    with tarfile.open(archive) as tar:
        assert {(m.mtime, m.uid, m.uname, m.mode) for m in tar} == {(0, 0, "", 0o644)}


def test_a_layer_that_is_there_twice_is_written_once(tmp_path):
    layer = make_layer(tmp_path, "one")
    twice = pack(Image(config=make_config(), layers=(layer, layer)))
    write_archive(twice, tmp_path / "twice.tar")
    with tarfile.open(tmp_path / "twice.tar") as tar:
        assert len(tar.getnames()) == len(set(tar.getnames())) == 6
    verify(open_image(tmp_path / "twice.tar"))


def test_a_layout_shares_the_files_of_the_layers(image, layout):
    for layer in image.layers:
        assert blob(layout, layer.digest).samefile(layer.path)


def test_what_was_written_is_read_again(image, layout, archive, tmp_path):
    for place in (layout, archive):
        read = open_image(place)
        verify(read)
        assert (read.manifest, read.config) == (image.manifest, image.config)
        assert [layer.title for layer in read.layers] == ["base", "python", "rest"]
        assert pack(image_of(read)).digest == image.digest
    write_layout(open_image(archive), tmp_path / "out", NAMES)
    verify(open_image(tmp_path / "out"))
    assert (tmp_path / "out/index.json").read_bytes() == (layout / "index.json").read_bytes()


def test_layers_are_appended_to_a_base(image, archive, tmp_path):
    base = image_of(open_image(archive))
    more = make_layer(tmp_path, "more")
    made = pack(replace(base, layers=(*base.layers, more)))
    write_archive(made, tmp_path / "made.tar")
    read = open_image(tmp_path / "made.tar")
    verify(read)
    assert [layer.digest for layer in read.layers[:3]] == [layer.digest for layer in image.layers]


def test_a_tampered_layer_is_named(image, layout):
    layer = image.layers[1]
    path = blob(layout, layer.digest)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    refused(layout, layer.digest, "python")


def test_a_tampered_layer_that_unpacks_to_the_same_is_named(image, layout):
    path = blob(layout, image.layers[1].digest)
    content = bytearray(path.read_bytes())
    content[4] = 1  # gzip's time
    path.unlink()
    path.write_bytes(content)
    refused(layout, image.layers[1].digest, "has the digest")


def test_a_layer_that_unpacks_to_something_else_is_named(image, tmp_path):
    wrong = replace(image.layers[0], diff_id="sha256:" + "0" * 64)
    lie = pack(Image(config=make_config(), layers=(wrong,)))
    write_archive(lie, tmp_path / "lie.tar")
    refused(tmp_path / "lie.tar", wrong.digest, image.layers[0].diff_id, wrong.diff_id)


def test_a_layer_that_is_no_gzip_is_named(image, tmp_path):
    plain = tmp_path / "plain"
    plain.write_bytes(b"no gzip")
    from longrun.oci.model import digest_of

    layer = replace(image.layers[0], path=plain, size=7, digest=digest_of(b"no gzip"))
    write_archive(pack(Image(config=make_config(), layers=(layer,))), tmp_path / "x.tar")
    refused(tmp_path / "x.tar", layer.digest, "unpacks to nothing")


@pytest.mark.parametrize("part", ["manifest", "config"])
def test_a_tampered_document_is_named(image, layout, part):
    digest = image.digest if part == "manifest" else image.config_digest
    path = blob(layout, digest)
    path.write_bytes(path.read_bytes().replace(b"2026.1", b"2026.2"))
    refused(layout, digest, "has the digest")


def test_a_missing_layer_is_named(image, layout):
    blob(layout, image.layers[2].digest).unlink()
    refused(layout, image.layers[2].digest, "is missing")


def test_a_truncated_layer_is_named(image, layout):
    path = blob(layout, image.layers[1].digest)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1])
    refused(layout, image.layers[1].digest, f"{len(content) - 1} bytes", f"{len(content)} are")


def test_a_link_instead_of_a_layer_does_not_count(image, layout):
    path = blob(layout, image.layers[1].digest)
    path.unlink()
    path.symlink_to(image.layers[1].path)
    refused(layout, image.layers[1].digest, "is missing")


@pytest.mark.parametrize("digest", ["sha256:../../../../etc/passwd", "md5:00", "", None, 3])
def test_a_digest_that_is_none_is_refused(layout, digest):
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["digest"] = digest
    (layout / "index.json").write_text(json.dumps(index))
    refused(layout, "no sha256 digest", "index.json")


@pytest.mark.parametrize("size", [-1, None, "1", True, 10**12])
def test_a_size_that_is_wrong_is_refused(image, layout, size):
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["size"] = size
    (layout / "index.json").write_text(json.dumps(index))
    refused(layout, image.digest)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"manifests": 3}', '{"manifests": []}', '{"manifests": [1]}', "\xff"]
)
def test_an_index_that_is_none_is_refused(layout, text):
    (layout / "index.json").write_bytes(text.encode("latin-1"))
    refused(layout, "index.json")


def test_a_configuration_with_fewer_layers_is_refused(image, tmp_path):
    few = json.loads(image.config)
    few["rootfs"]["diff_ids"].pop()
    config = json.dumps(few).encode()
    manifest = image.manifest.replace(
        image.config_digest.encode(), image_module.digest_of(config).encode()
    ).replace(f'"size":{len(image.config)}'.encode(), f'"size":{len(config)}'.encode())
    write_archive(replace(image, manifest=manifest, config=config), tmp_path / "few.tar")
    refused(tmp_path / "few.tar", "3 layers, but 2")


@pytest.mark.parametrize(
    ("key", "value"),
    [("Env", ["A", 1]), ("Env", {"A": 1}), ("Labels", {"a": 1}), ("Cmd", "sh"), ("User", 0)],
)
def test_a_base_with_a_strange_configuration_is_refused(image, key, value):
    document = json.loads(image.config)
    document["config"][key] = value
    with pytest.raises(SourceError, match=f"`{key}`"):
        image_of(replace(image, config=json.dumps(document).encode()))


def test_a_base_with_nulls_as_docker_writes_them_is_read(image):
    document = json.loads(image.config)
    document["config"] = dict.fromkeys(document["config"]) | {"Env": ["A"]}
    read = image_of(replace(image, config=json.dumps(document).encode()))
    assert (read.config.env, read.config.entrypoint) == ({"A": ""}, ())


@pytest.mark.parametrize("keep", [100, 5000, -30_000])
def test_a_truncated_archive_is_refused(archive, keep):
    archive.write_bytes(archive.read_bytes()[:keep])
    refused(archive, str(archive))


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "blobs/../../x"])
def test_an_archive_with_a_name_that_leaves_is_refused(archive, name):
    rewrite(archive, [*members(archive).items(), (name, b"x")])
    refused(archive, "leaves it", name)


def test_an_archive_with_a_name_twice_is_refused(archive):
    rewrite(archive, [*members(archive).items(), ("index.json", b"{}")])
    refused(archive, "index.json twice")


def test_what_is_no_image_is_refused(tmp_path):
    refused(tmp_path, "index.json")
    refused(tmp_path / "none", "not found")
    (tmp_path / "text").write_text("hello")
    refused(tmp_path / "text", "cannot be read as a tar")


def test_a_full_disk_leaves_nothing_of_an_archive(image, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(image_module, "_add", full)
    (tmp_path / "out").mkdir()
    with pytest.raises(BuildError, match="No space left") as caught:
        write_archive(image, tmp_path / "out/image.tar")
    assert "make room" in caught.value.remedy
    assert not list((tmp_path / "out").iterdir())


def test_a_failure_leaves_the_archive_that_was_there(image, archive):
    before = archive.read_bytes()
    shutil.rmtree(image.layers[0].path.parent)
    with pytest.raises(BuildError):
        write_archive(image, archive)
    assert archive.read_bytes() == before
