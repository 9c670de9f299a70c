"""numpy, scipy, pandas, matplotlib: known results, BLAS threads, FFT, fit, resampling, a picture.

Linear algebra is held against closed forms and against one thread; a signal's line is found in
its spectrum; a resonance is fitted; an archiver's uneven readings are brought to a raster across
a change of daylight saving; a figure is drawn with Agg and its pixels are looked at.
"""

import io
import os
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import scene

# Four threads also where the machine has fewer cores: what is tested is that threads are right.
for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "4"


def tasks() -> int:
    """How many threads the process has, with those of native libraries."""
    return len(os.listdir("/proc/self/task"))


def algebra() -> None:
    """Closed forms, and products from several threads at once."""
    import numpy as np
    import scipy.linalg

    # The second difference of n points has the eigenvalues 2 - 2 cos(k pi / (n + 1)).
    n = 300
    second = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    wanted = 2 - 2 * np.cos(np.arange(1, n + 1) * np.pi / (n + 1))
    np.testing.assert_allclose(np.linalg.eigvalsh(second), wanted, rtol=0, atol=1e-12)
    sign, logarithm = np.linalg.slogdet(second)
    assert sign == 1, sign
    assert abs(logarithm - np.log(n + 1)) < 1e-9, logarithm
    scene.step("eigenvalues and determinant of the second difference are the known ones")

    # An orbit correction: the pseudo-inverse of a response matrix by its singular values.
    random = np.random.default_rng(4)
    response = random.normal(size=(120, 40))
    kicks = random.normal(size=40)
    u, s, vt = scipy.linalg.svd(response, full_matrices=False)
    found = vt.T @ ((u.T @ (response @ kicks)) / s)
    np.testing.assert_allclose(found, kicks, rtol=0, atol=1e-10)
    np.testing.assert_allclose(np.linalg.pinv(response) @ response, np.eye(40), atol=1e-10)
    scene.step("an orbit response is inverted by its singular values")

    before = tasks()
    a = np.arange(600 * 600, dtype=float).reshape(600, 600) % 17 - 8
    b = np.arange(600 * 600, dtype=float).reshape(600, 600) % 23 - 11
    # Whole numbers: every order of the sums gives the same, so threads must not change a bit.
    exact = a.astype(np.int64) @ b.astype(np.int64)
    product = a @ b
    assert (product == exact).all(), "a product of whole numbers"
    if (os.cpu_count() or 1) > 1:
        assert max(before, tasks()) > 1, "BLAS has no threads of its own"
    with ThreadPoolExecutor(6) as pool:
        for result in pool.map(lambda _: a @ b, range(24)):
            assert (result == exact).all(), "a product beside others"
    scene.step("products of whole numbers are exact, also from six threads at once")

    # A fork with BLAS threads alive has hung libraries before: multiprocessing does it.
    child = os.fork()
    if child == 0:
        os._exit(0 if ((a @ b) == exact).all() else 3)
    status: list[int] = []
    waiter = threading.Thread(target=lambda: status.append(os.waitpid(child, 0)[1]), daemon=True)
    waiter.start()
    waiter.join(20)
    if not status:
        os.kill(child, 9)
    scene.expect("a product in a forked child is exact too", status, [0])

    with np.errstate(all="raise"):
        try:
            np.linalg.solve(np.ones((3, 3)), np.ones(3))
        except np.linalg.LinAlgError:
            scene.step("a singular matrix is refused")
        else:
            raise AssertionError("a singular matrix was solved")


def spectra() -> None:
    """The betatron line in a turn-by-turn signal; numpy's and scipy's transforms agree."""
    import numpy as np
    import scipy.fft
    import scipy.signal

    turns, tune = 4096, 0.2853
    t = np.arange(turns)
    noise = np.random.default_rng(1).normal(scale=0.3, size=turns)
    signal = np.cos(2 * np.pi * tune * t + 0.4) + noise
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(turns)))
    peak = int(spectrum.argmax())
    assert abs(peak / turns - tune) < 1 / turns, peak / turns
    np.testing.assert_allclose(scipy.fft.rfft(signal, workers=4), np.fft.rfft(signal), atol=1e-8)
    np.testing.assert_allclose(np.fft.irfft(np.fft.rfft(signal)), signal, atol=1e-12)
    energy = np.sum(np.abs(np.fft.fft(signal)) ** 2) / turns
    assert abs(energy / np.sum(signal**2) - 1) < 1e-12, "Parseval"
    scene.step("a tune is found in a noisy signal, transforms agree and invert")

    sos = scipy.signal.butter(4, [0.27 * 2, 0.30 * 2], "bandpass", output="sos")
    clean = scipy.signal.sosfiltfilt(sos, signal)[500:-500]
    error = np.std(clean - np.cos(2 * np.pi * tune * t + 0.4)[500:-500])
    assert error < 0.12, error
    scene.step("a band pass takes the noise away")


def fits() -> None:
    """A resonance with noise; an integral; a differential equation."""
    import numpy as np
    import scipy.integrate
    import scipy.optimize

    def resonance(f, amplitude, centre, width, floor):  # type: ignore[no-untyped-def]
        return floor + amplitude / (1 + ((f - centre) / width) ** 2)

    truth = (3.0, 499.654, 0.02, 0.1)
    f = np.linspace(499.5, 499.8, 400)
    data = resonance(f, *truth) + np.random.default_rng(2).normal(scale=0.05, size=f.size)
    found, covariance = scipy.optimize.curve_fit(resonance, f, data, p0=(1, 499.6, 0.05, 0))
    sigma = np.sqrt(np.diag(covariance))
    # The width's sign is free: only its square is in the formula.
    assert (np.abs(np.abs(found) - truth) < 4 * sigma).all(), (found, sigma)
    assert sigma[1] < 1e-3, sigma
    scene.step("a cavity's resonance is fitted within its errors")

    value, _ = scipy.integrate.quad(lambda x: np.exp(-(x**2)), -np.inf, np.inf)
    assert abs(value - np.sqrt(np.pi)) < 1e-10, value
    solved = scipy.integrate.solve_ivp(
        lambda _t, y: [y[1], -y[0]], (0, 20 * np.pi), [1.0, 0.0], rtol=1e-10, atol=1e-12
    )
    np.testing.assert_allclose(solved.y[:, -1], [1, 0], atol=1e-6)
    scene.step("an integral and ten turns of an oscillator are right")


def series() -> None:
    """An archiver's readings: uneven, in local time, across the change from summer time."""
    import numpy as np
    import pandas as pd

    # 25 hours of a local day, a reading every 7 s: 2:00 to 3:00 comes twice.
    begin = pd.Timestamp("2026-10-25", tz="Europe/Berlin")
    index = pd.date_range(begin, periods=25 * 3600 // 7, freq="7s")
    readings = pd.Series(np.arange(len(index), dtype=float), index=index, name="beam:current")
    hours = readings.resample("1h").agg(["count", "min", "max"])
    scene.expect("the day that leaves summer time has 25 hours", len(hours), 25)
    scene.expect("no reading is lost", int(hours["count"].sum()), len(readings))
    twice = hours.index[hours.index.hour == 2]
    offsets = [stamp.utcoffset().total_seconds() / 3600 for stamp in twice]
    scene.expect("the hour after 2:00 comes twice", offsets, [2.0, 1.0])

    slow = pd.DataFrame(
        {"time": pd.to_datetime([0, 10, 20], unit="s", utc=True), "mode": ["off", "ramp", "on"]}
    )
    fast = pd.DataFrame({"time": pd.to_datetime([1, 9, 10, 11, 99], unit="s", utc=True)})
    joined = pd.merge_asof(fast, slow, on="time")["mode"].tolist()
    scene.expect("the last mode before each reading", joined, ["off", "off", "ramp", "ramp", "on"])
    gap = pd.Series([1.0, None, None, 4.0], index=pd.date_range("2026-01-01", periods=4, freq="s"))
    scene.expect("a gap is filled", gap.interpolate("time").tolist(), [1.0, 2.0, 3.0, 4.0])

    text = readings.head(1000).to_csv()
    again = pd.read_csv(io.StringIO(text), index_col=0)
    stamps = pd.to_datetime(again.index, utc=True).tz_convert("Europe/Berlin")
    assert (stamps == readings.index[:1000]).all(), "time stamps through CSV"
    assert (again["beam:current"].to_numpy() == readings.head(1000).to_numpy()).all()
    scene.step("readings survive CSV with their time zone")


def picture() -> None:
    """A figure with Agg: the curve's pixels are where it runs, the same through a PNG file."""
    import matplotlib

    matplotlib.use("agg")
    import numpy as np
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), dpi=100)
    x = np.linspace(0, 10, 500)
    axes.plot(x, 2 * x, color="#ff0000", linewidth=3, antialiased=False, label=r"$\beta_x$ [m]")
    axes.set(xlim=(0, 10), ylim=(0, 20), title="Strahl: ä µ", xlabel="s [m]")
    axes.legend(loc="upper left")
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())
    scene.expect("the figure's size", pixels.shape, (400, 600, 4))
    for at in (2.5, 5.0, 7.5):
        column, row = axes.transData.transform((at, 2 * at))
        found = tuple(pixels[round(400 - row), round(column)])
        assert found == (255, 0, 0, 255), (at, found)
        away = tuple(pixels[round(400 - row) + 12, round(column)])
        assert away == (255, 255, 255, 255), (at, away)
    scene.step("the curve has its colour where it runs, the ground beside it")
    title = pixels[:40, 200:400, :3]
    assert (title < 100).all(axis=2).sum() > 100, "no text in the title"
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "figure.png")
        figure.savefig(path)
        again = (plt.imread(path) * 255).round().astype(np.uint8)
        assert (again == pixels).all(), "PNG differs from the canvas"
        figure.savefig(os.path.join(directory, "figure.pdf"))
        figure.savefig(os.path.join(directory, "figure.svg"))
        with open(os.path.join(directory, "figure.pdf"), "rb") as file:
            assert file.read(5) == b"%PDF-"
        with open(os.path.join(directory, "figure.svg"), encoding="utf-8") as file:
            assert "</svg>" in file.read()
    plt.close(figure)
    scene.step("text is drawn; PNG equals the canvas; PDF and SVG are written")


def main() -> int:
    """All of it."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ["MPLCONFIGDIR"] = directory  # its font cache; else it complains of no home
        algebra()
        spectra()
        fits()
        series()
        picture()
    return 0


if __name__ == "__main__":
    sys.exit(main())
