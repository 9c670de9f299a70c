"""numpy's and scipy's BLAS threads beside a Java VM, and children by fork and spawn of both.

Products of whole numbers stay exact while Java works on arrays of numpy and collects its garbage;
arrays pass both ways; deep recursion still ends as an exception in each, for the VM guards stacks
in its own way; a floating point state is not changed; a child by fork computes, one by spawn
starts a VM of its own. Needs no compiler: the classes are Java's own.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from typing import Any

from scene import expect, step

# Four threads also where the machine has fewer cores: what is tested is that threads are right.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = "4"

import jpype  # noqa: E402
import numpy as np  # noqa: E402
import scipy.linalg  # noqa: E402


def start() -> None:
    """The VM, with signals left to Python and no file in the shared temporary directory."""
    jpype.startJVM("-Xrs", "-XX:-UsePerfData", "-Xmx256m")


def operands() -> tuple[Any, Any]:
    """Matrices of whole numbers: every order of the sums gives the same."""
    a = np.arange(500 * 500, dtype=float).reshape(500, 500) % 17 - 8
    b = np.arange(500 * 500, dtype=float).reshape(500, 500) % 23 - 11
    return a, b


def product() -> float:
    """A number that tells whether a product is right."""
    a, b = operands()
    return float(np.abs(a @ b).sum())


def in_java() -> float:
    """A sum by a VM of a child's own."""
    start()
    return float(jpype.java.util.stream.DoubleStream.of([1.5, 2.5]).sum())


def meanwhile(stop: threading.Event, sums: list[float]) -> None:
    """Work for Java: sorting and summing arrays of numpy, and leaving garbage."""
    data = np.random.default_rng(1).permutation(100_000).astype(float)
    while not stop.is_set():
        array = jpype.JArray(jpype.JDouble)(data)
        jpype.java.util.Arrays.parallelSort(array)
        sums.append(float(jpype.java.util.stream.DoubleStream.of(array).sum()))
        assert np.array_equal(np.asarray(array)[:5], [0, 1, 2, 3, 4]), "not sorted"
        jpype.java.lang.System.gc()


def algebra() -> None:
    """Products beside Java's work."""
    a, b = operands()
    exact = a.astype(np.int64) @ b.astype(np.int64)
    stop, sums = threading.Event(), list[float]()
    thread = threading.Thread(target=meanwhile, args=(stop, sums))
    thread.start()
    try:
        for _ in range(30):
            assert (a @ b == exact).all(), "a product beside Java"
        matrix = np.random.default_rng(2).normal(size=(200, 200))
        u, s, vt = scipy.linalg.svd(matrix)
        np.testing.assert_allclose(u * s @ vt, matrix, atol=1e-10)
    finally:
        stop.set()
        thread.join()
    step("products are exact while Java works")
    expect("and Java's sums are right", set(sums), {100_000 * 99_999 / 2})
    with np.errstate(divide="raise"):
        try:
            np.array([1.0]) / np.array([0.0])
        except FloatingPointError:
            step("a division by zero is still told")
        else:
            raise AssertionError("a division by zero was not told")


def recursion() -> None:
    """Too deep a recursion is an exception, also in a thread beside the VM."""
    told: list[str] = []

    def deeper(depth: int) -> int:
        return deeper(depth + 1) + 1

    def fall() -> None:
        try:
            deeper(0)
        except RecursionError:
            told.append("RecursionError")

    fall()
    thread = threading.Thread(target=fall)
    thread.start()
    thread.join()
    expect("recursion ends as an exception", told, ["RecursionError"] * 2)


def children() -> None:
    """By fork to compute, by spawn to have another VM."""
    right = product()
    for method, work, wanted in (("fork", product, right), ("spawn", in_java, 4.0)):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            found = pool.apply_async(work).get(60)
            pool.close()
            pool.join()
        expect(f"a child by {method}", found, wanted)


def main() -> int:
    """All of it."""
    start()
    algebra()
    recursion()
    children()
    algebra()
    return 0


if __name__ == "__main__":
    sys.exit(main())
