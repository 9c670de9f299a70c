"""Layers: the same bytes from the same members, whatever the machine, and all of them there."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile

import pytest
from oci_maker import EPOCH, NOISE, compress, make_layer

from longrun import fs
from longrun.errors import BuildError
from longrun.oci.layer import PROGRAM, Member, arrange, compress_layer, tree_members, write_layer


def tar_of(layer) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer.path.read_bytes())))


def names(*paths: str) -> list[str]:
    return [member.path for member in arrange(Member(path=path) for path in paths)]


def test_digests_are_those_of_the_file_and_of_what_it_unpacks_to(tmp_path):
    layer = make_layer(tmp_path, "one", content=NOISE * 40)
    content = layer.path.read_bytes()
    assert layer.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert layer.size == len(content)
    assert layer.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(content)).hexdigest()}"
    assert sorted(tmp_path.iterdir()) == [layer.path]  # nothing else is left


def test_other_programs_unpack_it(tmp_path):
    layer = make_layer(tmp_path, "one", Member(path="a/b", content=NOISE * 99))
    out = subprocess.run(["tar", "-xzOf", layer.path, "a/b"], check=True, capture_output=True)
    assert out.stdout == NOISE * 99


def test_the_same_members_give_the_same_bytes_whatever_their_order_and_times(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(NOISE * 50)
    members = [Member(path="b/c", source=source), Member(path="a", kind=fs.LINK, target="b/c")]
    first = make_layer(tmp_path / "1", "x", *members)
    os.utime(source, (1, 1))
    source.chmod(0o777)
    assert make_layer(tmp_path / "2", "x", *reversed(members)).digest == first.digest


def test_the_number_of_processors_does_not_change_the_bytes(tmp_path):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor")
    first = make_layer(tmp_path / "1", "x", content=NOISE * 100)

    def alone(arguments):
        one = str(min(os.sched_getaffinity(0)))
        argv = ["taskset", "-c", one, sys.executable, "-I", "-S", *arguments]
        subprocess.run(argv, check=True)

    out = tmp_path / "alone"
    members = [Member(path="opt/x/file", content=NOISE * 100)]
    second = write_layer(members, out, title="x", epoch=EPOCH, compress=alone)
    assert second.digest == first.digest


@pytest.mark.parametrize("length", [0, 1, 1 << 20, (1 << 20) - 1536, (2 << 20) + 1])
def test_any_size_of_content(tmp_path, length):
    content = (NOISE * 40)[:length]
    layer = make_layer(tmp_path, "x", Member(path="f", content=content))
    assert tar_of(layer).extractfile("f").read() == content


def test_nothing_of_the_builder_is_in_it(tmp_path):
    layer = make_layer(tmp_path, "x", Member(path="home/user/f", content=b"x", owner=1000))
    assert layer.path.read_bytes()[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    for member in tar_of(layer):
        owner = (1000, 1000, "", "") if member.isfile() else (0, 0, "root", "root")
        assert (member.uid, member.gid, member.uname, member.gname) == owner
        assert (member.mtime, member.pax_headers) == (EPOCH, {})


def test_directories_above_come_once_with_their_own_mode_where_it_is_given():
    members = [
        Member(path="a/b/c"),
        Member(path="a/b/d"),
        Member(path="a/b", kind=fs.DIRECTORY, mode=0o700),
    ]
    found = [(member.path, member.kind, member.mode) for member in arrange(members)]
    assert found == [
        ("a", fs.DIRECTORY, 0o755),
        ("a/b", fs.DIRECTORY, 0o700),
        ("a/b/c", fs.FILE, 0o644),
        ("a/b/d", fs.FILE, 0o644),
    ]


def test_a_directory_is_followed_by_what_is_in_it():
    assert names("a-c", "a/b", "a.d") == ["a", "a/b", "a-c", "a.d"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../b", "a//b", "a/", "", ".", "a\0b"])
def test_a_path_that_leaves_or_is_none_is_refused(path):
    with pytest.raises(BuildError, match="cannot have a member"):
        names(path)


def test_two_members_at_one_path_are_refused():
    with pytest.raises(BuildError, match="two members at a/b"):
        names("a/b", "a/b")


def test_a_member_below_a_link_is_refused():
    members = [Member(path="lib", kind=fs.LINK, target="usr/lib"), Member(path="lib/libc.so")]
    with pytest.raises(BuildError, match=r"lib/libc\.so below lib, which is a link"):
        arrange(members)


def test_hard_names_and_modes(tmp_path):
    long = "/".join(["d" * 90] * 4)
    wanted = {
        "ä/ö ü\n": 0o644,
        "x" * 255: 0o4755,
        long: 0o1777,
        os.fsdecode(b"not-utf8-\xff"): 0o600,
        "-rf": 0o444,
    }
    members = [Member(path=path, content=b"1", mode=mode) for path, mode in wanted.items()]
    layer = make_layer(tmp_path, "x", *members)
    # read as other programs do: as bytes
    with tarfile.open(layer.path, encoding="utf-8", errors="surrogateescape") as tar:
        assert {m.name: m.mode for m in tar if m.isfile()} == wanted


def test_a_link_keeps_its_long_target(tmp_path):
    target = "../" * 50 + "lib"
    layer = make_layer(tmp_path, "x", Member(path="l", kind=fs.LINK, target=target, mode=0o777))
    assert tar_of(layer).getmember("l").linkname == target


def test_a_file_of_more_than_8_gib_says_so_as_tar_can_read_it():
    """Its header alone: nine gigabytes of zeros take a minute."""
    code = (
        f"import sys, runpy, tarfile; m = runpy.run_path({str(PROGRAM)!r}); add = m['add']\n"
        "tarfile.TarFile.addfile = lambda s, i, f=None: sys.stdout.buffer.write("
        "i.tobuf(s.format, s.encoding, s.errors))\n"
        "m['os'].fstat = lambda n: type('S', (), {'st_size': 9 << 30})\n"
        "t = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.PAX_FORMAT)\n"
        "add(t, {'path': 'f', 'kind': 'file', 'mode': 420, 'owner': 0, 'source': '/dev/null'}, 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    read = subprocess.run(["tar", "-tvf-"], input=done.stdout, capture_output=True)
    assert str(9 << 30).encode() in read.stdout, read.stderr


def test_a_tree_is_put_in_as_it_is(tmp_path):
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/python").write_bytes(b"elf")
    (tree / "bin/python").chmod(0o555)
    (tree / "bin/py").symlink_to("python")
    records = fs.scan(tree)
    layer = make_layer(tmp_path / "out", "x", *tree_members(tree, records, "opt/longrun"))
    unpacked = tmp_path / "unpacked"
    with tar_of(layer) as tar:
        tar.extractall(unpacked, filter="tar")
    assert fs.tree_digest(fs.scan(unpacked / "opt/longrun")) == fs.tree_digest(records)


def test_a_tar_that_is_there_becomes_a_layer_as_it_is(tmp_path):
    root = tmp_path / "root.tar"
    with tarfile.open(root, "w") as tar:
        member = tarfile.TarInfo("var/mail")
        member.type, member.gid, member.mode = tarfile.DIRTYPE, 8, 0o2775
        tar.addfile(member)
    layer = compress_layer(root, tmp_path / "root.tar.gz", title="base", compress=compress)
    assert gzip.decompress(layer.path.read_bytes()) == root.read_bytes()
    assert layer.diff_id == f"sha256:{fs.sha256_file(root)}"


def test_a_source_that_is_gone_fails_and_leaves_no_order(tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        make_layer(tmp_path, "x", Member(path="f", source=tmp_path / "gone"))
    assert not list(tmp_path.glob("*.order"))
