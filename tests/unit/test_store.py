"""The store: nothing half-written is ever seen, damage is found, garbage is only garbage."""

from __future__ import annotations

import dataclasses
import os
import stat
import threading
from pathlib import Path

import pytest

from longrun import fs
from longrun.errors import BuildError, StoreError
from longrun.store import Store, disk_usage


@pytest.fixture
def store(tmp_path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def put(store: Store, step, content: str = "content"):
    with store.stage(step) as stage:
        (stage.tree / "bin").mkdir()
        (stage.tree / "bin" / "tool").write_text(content)
        (stage.tree / "link").symlink_to("bin/tool")
        return store.commit(stage, step, seconds=1.5)


def leftovers(store: Store) -> list[Path]:
    return list((store.root / "staging").iterdir())


def writable(path: Path) -> None:
    path.chmod(path.stat().st_mode | stat.S_IWUSR)


def test_an_entry_is_found_by_its_key_and_read_only(store, checkout):
    step = checkout.plan().find("library/z")
    assert store.get(step.key) is None
    put(store, step)
    entry = Store(store.root).get(step.key)
    assert entry is not None
    assert (entry.tree / "bin/tool").read_text() == "content"
    assert entry.record["id"] == "library/z"
    assert entry.record["seconds"] == 1.5
    for path in [entry.path, entry.tree, *entry.tree.rglob("*")]:
        assert path.is_symlink() or not path.stat().st_mode & 0o222, path
    assert leftovers(store) == []


def test_an_entry_that_comes_while_another_thread_looks_is_found(store, checkout, monkeypatch):
    """Sources come four at a time; each looks first what other processes have built."""
    one, two = (checkout.plan().find(name) for name in ("library/z", "library/ssl"))
    real, listed, committed = os.listdir, threading.Event(), threading.Event()

    def listdir(path):
        names = real(path)
        if not listed.is_set():
            listed.set()
            committed.wait(0.5)
        return names

    monkeypatch.setattr(os, "listdir", listdir)
    looks = threading.Thread(target=store.get, args=(two.key,))
    looks.start()
    listed.wait(10)
    put(store, one)
    committed.set()
    looks.join(10)
    assert store.get(one.key) is not None


def test_the_same_content_has_the_same_digest_and_other_content_another(store, checkout):
    plan = checkout.plan()
    one = put(store, plan.find("library/z"))
    same = put(store, plan.find("library/ssl"))
    other = put(store, plan.find("interpreter/cpython-3.13"), "changed")
    assert one.record["digest"] == same.record["digest"] != other.record["digest"]


def test_a_failed_step_leaves_nothing_behind(store, checkout):
    step = checkout.plan().find("library/z")
    with pytest.raises(BuildError), store.stage(step) as stage:
        (stage.tree / "half").write_text("x")
        raise BuildError("no")
    assert store.get(step.key) is None
    assert leftovers(store) == []


def test_a_failed_step_is_kept_on_request(store, checkout):
    step = checkout.plan().find("library/z")
    with pytest.raises(BuildError), store.stage(step, keep_failed=True) as stage:
        (stage.tree / "half").write_text("x")
        raise BuildError("no")
    assert store.get(step.key) is None
    (kept,) = (store.root / "failed").iterdir()
    assert (kept / "entry/tree/half").read_text() == "x"


def test_verify_names_what_was_changed_added_and_lost(store, checkout):
    entry = put(store, checkout.plan().find("library/z"))
    assert store.verify(entry) == []
    tool = entry.tree / "bin/tool"
    writable(tool)
    tool.write_text("CONTENT")
    os.utime(tool, (1, 1))
    tool.chmod(0o444)
    assert store.verify(entry) == ["bin/tool: changed"]
    writable(entry.tree)
    (entry.tree / "link").unlink()
    (entry.tree / "new").write_text("")
    assert store.verify(entry) == [
        "bin/tool: changed",
        "link: missing",
        "new: not in the record",
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tree: (writable(tree / "bin/tool"), (tree / "bin/tool").write_text("")), "mode"),
        (lambda tree: (writable(tree), (tree / "link").unlink()), "link: missing"),
        (lambda tree: writable(tree / "bin"), "bin: mode 0755, was 0555"),
    ],
)
def test_damage_is_seen_before_an_entry_is_used(store, checkout, damage, message):
    entry = put(store, checkout.plan().find("library/z"))
    store.check(entry)
    damage(entry.tree)
    with pytest.raises(StoreError, match=message):
        store.check(entry)


def test_a_truncated_file_is_seen_without_reading_it(store, checkout):
    entry = put(store, checkout.plan().find("library/z"))
    tool = entry.tree / "bin/tool"
    writable(tool)
    os.truncate(tool, 3)
    tool.chmod(0o444)
    with pytest.raises(StoreError, match="3 bytes, were 7"):
        store.check(entry)


def test_a_removed_entry_is_gone_for_everyone(store, checkout):
    step = checkout.plan().find("library/z")
    store.remove(put(store, step))
    assert store.get(step.key) is None
    assert Store(store.root).entries() == []
    assert leftovers(store) == []


def test_what_a_killed_build_left_is_swept_but_not_what_is_still_written(store, checkout):
    plan = checkout.plan()
    with store.stage(plan.find("library/ssl")) as living:
        child = os.fork()
        if child == 0:
            with store.stage(plan.find("library/z")) as stage:
                (stage.tree / "half").write_text("x")
                os._exit(9)
        os.waitpid(child, 0)
        assert len(leftovers(store)) == 2
        assert store.sweep() == 1
        assert leftovers(store) == [living.path]


def test_garbage_is_what_no_checkout_uses(store, checkout):
    plan = checkout.plan()
    old = put(store, plan.find("library/z"))
    store.write_root(checkout.root, plan)
    assert store.garbage() == []
    checkout.library("z", version="1.1", sha="f")
    store.write_root(checkout.root, checkout.plan())
    assert [entry.path for entry in store.garbage()] == [old.path]


def test_building_one_interpreter_does_not_make_the_other_garbage(store, checkout):
    both = checkout.plan("3.13", "3.11")
    put(store, both.find("interpreter/cpython-3.11"))
    store.write_root(checkout.root, both)
    store.write_root(checkout.root, checkout.plan("3.13"))
    assert store.garbage() == []


def test_the_entries_of_a_checkout_that_is_gone_are_garbage(store, checkout):
    plan = checkout.plan()
    put(store, plan.find("library/z"))
    store.write_root(checkout.root, plan)
    checkout.root.rename(checkout.root.with_name("elsewhere"))
    assert len(store.garbage()) == 1


def test_the_predecessor_is_the_youngest_of_the_same_kind_and_name(store, checkout):
    first = checkout.plan().find("library/z")
    put(store, first)
    checkout.library("z", version="1.1", sha="f")
    step = checkout.plan().find("library/z")
    found = store.predecessor(step)
    assert found is not None
    assert found.record["version"] == "1.0"


def test_a_store_that_cannot_be_written_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "file" / "store").prepare()
    assert "LONGRUN_CACHE" in caught.value.remedy


def test_what_another_process_built_meanwhile_is_found_and_not_built_again(store, checkout):
    step = checkout.plan().find("library/z")
    assert store.get(step.key) is None
    put(Store(store.root), step)
    with store.building(step, waiting=lambda: None):
        assert store.get(step.key) is not None


def test_the_same_step_committed_twice_is_one_whole_entry(store, checkout):
    step = checkout.plan().find("library/z")
    put(store, step)
    entry = put(Store(store.root), step)
    assert store.verify(entry) == []
    assert len(Store(store.root).entries()) == 1
    assert leftovers(store) == []


def test_builds_share_the_store_and_a_removal_needs_it_alone(store):
    other = Store(store.root)

    def use(*, alone: bool) -> None:
        with other.used(alone=alone):
            pass

    with store.used():
        use(alone=False)
        with pytest.raises(StoreError, match="in use by a build"):
            use(alone=True)
    with store.used(alone=True), pytest.raises(StoreError, match="in use by gc"):
        use(alone=False)
    use(alone=True)


def put_wheel(store: Store, step, files: dict[str, str], *, mode: int = 0o444):
    """An entry of a wheel: a plan for bare interpreters has none, so a library stands in."""
    step = dataclasses.replace(step, kind="wheel")
    with store.stage(step) as stage:
        for name, text in files.items():
            (stage.tree / name).write_text(text)
            (stage.tree / name).chmod(mode)
            os.utime(stage.tree / name, (0, 0))
        return store.commit(stage, step, seconds=1.0)


def test_equal_files_of_wheels_are_kept_once(store, checkout):
    plan = checkout.plan("3.13", "3.11")
    one = put_wheel(store, plan.find("library/z"), {"a.py": "same", "b.py": "one", "empty": ""})
    two = put_wheel(store, plan.find("library/ssl"), {"c.py": "same", "b.py": "two", "empty": ""})
    assert (one.tree / "a.py").samefile(two.tree / "c.py")
    assert (two.tree / "b.py").read_text() == "two"
    assert not (one.tree / "empty").samefile(two.tree / "empty")  # thousands of names for nothing
    assert disk_usage([one, two]) == len("same" + "one" + "two")
    assert disk_usage([one], alone=True) == len("one")
    assert disk_usage([one, two], alone=True) == len("same" + "one" + "two")


def test_files_that_differ_in_mode_are_kept_apart(store, checkout):
    plan = checkout.plan()
    one = put_wheel(store, plan.find("library/z"), {"a": "same"})
    two = put_wheel(store, plan.find("library/ssl"), {"a": "same"}, mode=0o555)
    assert stat.S_IMODE((one.tree / "a").stat().st_mode) == 0o444
    assert stat.S_IMODE((two.tree / "a").stat().st_mode) == 0o555


def test_a_damaged_file_is_not_shared_with_what_is_built_next(store, checkout):
    plan = checkout.plan()
    one = put_wheel(store, plan.find("library/z"), {"a": "same"})
    writable(one.tree / "a")
    (one.tree / "a").write_text("SAME")
    assert store.verify(one) == ["a: changed"]
    store.forget(one)
    store.remove(one)
    two = put_wheel(store, plan.find("library/ssl"), {"a": "same"})
    assert (two.tree / "a").read_text() == "same"
    assert store.verify(two) == []


def test_shared_files_go_with_the_last_entry_that_has_them(store, checkout):
    one = put_wheel(store, checkout.plan().find("library/z"), {"a": "same"})
    store.prune()
    assert len(list((store.root / "files").glob("*/*"))) == 1
    store.remove(one)
    store.prune()
    assert list((store.root / "files").glob("*/*")) == []


def test_verify_reads_a_file_with_many_names_once(store, checkout, monkeypatch):
    plan = checkout.plan()
    entries = [
        put_wheel(store, plan.find("library/z"), {"a": "same"}),
        put_wheel(store, plan.find("library/ssl"), {"a": "same"}),
    ]
    hashed = []
    real = fs.sha256_file
    monkeypatch.setattr(fs, "sha256_file", lambda path: hashed.append(path) or real(path))
    read: dict[fs.Inode, str] = {}
    assert [store.verify(entry, read) for entry in entries] == [[], []]
    assert len(hashed) == 1


def test_what_the_builder_hashed_is_not_read_again(store, checkout, monkeypatch):
    step = checkout.plan().find("library/z")
    monkeypatch.setattr(fs, "sha256_file", lambda path: pytest.fail(f"read {path}"))
    with store.stage(step) as stage:
        (stage.tree / "a").write_text("x")
        entry = store.commit(stage, step, seconds=1.0, known={"a": "f" * 64})
    assert {record.path: record.value for record in entry.files()} == {"a": "f" * 64}
