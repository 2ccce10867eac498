"""Scans as they come, as whole processes with no hint but what a file or its README says: figures beside what is asked.

    python benchmarks/as_they_come.py [--data ../shared/data] [--jobs star-bare gold …] [--keep FOLDER] [--busy N]

``star-bare``: a real scan with its probe removed and its positions negated and exchanged. ``gold``: a CXI file without
a probe. ``electron``: a 4D-STEM array with what its README says, its probe found, beside the same with the probe
described. ``round-trips``: the star through each writer and back. ``inspect``: a sparse HDF5 file of 100 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from real_scan import kept_busy

from ptycho_core.provenance import machine

STAR = "siemens_star_64.npz"
ELECTRONS = (
    *("--radiation", "electron", "--energy_eV", "300keV", "--pixel_size_m", "9.3A"),
    *("--scan_step", "93.75A", "--rotate", "-126"),
)
DESCRIBED = "aperture(radius=62, defocus=-13.5um)"


def ptycho(*arguments: str) -> tuple[float, float]:
    """Run the command in a fresh process; its seconds and its peak memory in MB.

    Raises:
        SystemExit: it failed.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "ptycho_core.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = process.stdout.read() if process.stdout else ""
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"ptycho {' '.join(arguments)} failed:\n{said}")
    return time.perf_counter() - began, used.ru_maxrss / 1e3


def summary_of(out: Path) -> dict[str, object]:
    return dict(json.loads((out / "summary.json").read_text()))


def errors_of(out: Path) -> dict[str, float]:
    """Fourier error of training and held-out frames, and the deviance of the latter."""
    figures = summary_of(out)["figures"]
    assert isinstance(figures, dict)
    return {
        "fourier_error": figures["train"]["fourier_error"],
        "heldout_fourier_error": figures["heldout"]["fourier_error"],
        "heldout_deviance": figures["heldout"]["deviance"],
    }


def best_overlap(one: np.ndarray, two: np.ndarray, finer: int = 8) -> float:
    """|correlation| of two complex planes, best over shifts by eighths of a pixel: a probe's place is free."""
    product = np.fft.fft2(one).conj() * np.fft.fft2(two)
    N = len(product)
    wide = np.zeros((N * finer, N * finer), complex)
    first = (N * finer - N) // 2
    wide[first : first + N, first : first + N] = np.fft.fftshift(product)
    overlap = np.abs(np.fft.ifft2(np.fft.ifftshift(wide))).max() * finer**2
    return float(overlap / np.linalg.norm(one) / np.linalg.norm(two))


def star_bare(data: Path, work: Path) -> dict[str, float]:
    """The star without its probe, positions (y, x) → −(x, y); nothing is said but what the file says."""
    with np.load(data / STAR) as star:
        content = {name: star[name] for name in star.files if name not in ("probeGuess", "objectGuess")}
        known = star["probeGuess"]
    content |= {"xcoords": -content["ycoords"], "ycoords": -content["xcoords"], "measurement": np.array("amplitude")}
    np.savez(work / "star-bare.npz", **content)
    seconds, memory = ptycho("run", str(work / "star-bare.npz"), "--out", str(work / "star-bare"))
    from ptycho_core.io import read_probe
    from ptycho_core.physics.probe import orthogonalise

    main = orthogonalise(read_probe(work / "star-bare" / "reconstruction.h5"))[0]
    twin = np.conj(main[::-1, ::-1])
    return {
        "seconds": seconds,
        "peak_MB": memory,
        **errors_of(work / "star-bare"),
        "probe_correlation": best_overlap(main, known),
        "twin_probe_correlation": best_overlap(twin, known),
    }


def gold(data: Path, work: Path) -> dict[str, float]:
    """The CXI file as it is, compared with the object that it was made of."""
    seconds, memory = ptycho("run", str(data / "gold_balls_104.cxi"), "--out", str(work / "gold"))
    from ptycho_core.evaluation.metrics import compare_objects
    from ptycho_core.io.stored_reconstruction import read_reconstruction

    image = read_reconstruction(work / "gold" / "reconstruction.h5")
    with np.load(data / "gold_balls_104_truth.npz") as truth:
        known = truth["object"]
    # both were made about the middle of the scan
    origins = [-(np.array(plane.shape) - 1) / 2 for plane in (image.object, known)]
    found = compare_objects(image.object, origins[0], known, origins[1], coverage=image.coverage)
    return {"seconds": seconds, "peak_MB": memory, **errors_of(work / "gold"), "correlation": found.correlation}


def electron(data: Path, work: Path) -> dict[str, float]:
    """Electrons with the probe found, beside the probe described."""
    file = str(data / "electron_4dstem.h5")
    seconds, memory = ptycho("run", file, *ELECTRONS, "--out", str(work / "electron"))
    described, _ = ptycho("run", file, *ELECTRONS, "--probe", DESCRIBED, "--out", str(work / "electron-described"))
    found, known = errors_of(work / "electron"), errors_of(work / "electron-described")
    return {
        "seconds": seconds,
        "seconds_described": described,
        "peak_MB": memory,
        **found,
        "heldout_deviance_described": known["heldout_deviance"],
        "heldout_deviance_ratio": found["heldout_deviance"] / known["heldout_deviance"],
    }


def round_trips(data: Path, work: Path) -> dict[str, float]:
    """Fourier error of the star after each writer, less that of the star as it is, all solved alike."""
    said = ("--measurement", "amplitude")
    solve = ("--preset", "quick", "--threads", "1")
    ptycho("run", str(data / STAR), *said, *solve, "--out", str(work / "as-is"))
    before = errors_of(work / "as-is")["fourier_error"]
    geometry = ("--energy_eV", "8.8keV", "--distance_m", "1.92", "--detector_pixel_size_m", "75um")
    out: dict[str, float] = {}
    for name, suffix in (("npz", "npz"), ("hdf5", "h5"), ("cxi", "cxi"), ("nxcxi", "nxs")):
        file = work / f"star.{suffix}"
        ptycho("convert", str(data / STAR), str(file), *said, *geometry)
        ptycho("run", str(file), *solve, "--out", str(work / f"from-{name}"))
        out[f"{name}_difference"] = errors_of(work / f"from-{name}")["fourier_error"] - before
    return out


def inspect(data: Path, work: Path) -> dict[str, float]:
    """`inspect` on a sparse HDF5 file of 100 GB of which some frames are written."""
    import h5py

    N, M = 512, 95_367
    rng = np.random.default_rng(0)
    with h5py.File(work / "huge.h5", "w") as file:
        frames = file.create_dataset("frames", (M, N, N), "u4", chunks=(1, N, N))
        frames.attrs["measurement"] = "counts"
        y, x = np.mgrid[:N, :N] - N / 2
        for number in range(0, M, M // 40):
            frames[number] = rng.poisson(200 * np.exp(-(y**2 + x**2) / 2e3))
        file["positions_px"] = np.stack(np.divmod(np.arange(M), 309), axis=-1) * 40.0
    seconds, memory = ptycho("inspect", str(work / "huge.h5"))
    return {"seconds": seconds, "peak_MB": memory}


JOBS: dict[str, tuple[Callable[[Path, Path], dict[str, float]], dict[str, tuple[str, float]]]] = {
    "star-bare": (
        star_bare,
        {"fourier_error": ("<=", 0.0075), "seconds": ("<=", 90), "probe_correlation": (">=", 0.9)},
    ),
    "gold": (gold, {"correlation": (">=", 0.9)}),
    "electron": (electron, {"heldout_deviance_ratio": ("<=", 1.3)}),
    "round-trips": (
        round_trips,
        {f"{name}_difference": ("|.|<=", 1e-6) for name in ("npz", "hdf5", "cxi", "nxcxi")},
    ),
    "inspect": (inspect, {"seconds": ("<=", 2), "peak_MB": ("<=", 300)}),
}
"""Job → what makes its figures, and what they must reach."""


def reached(value: float, rule: str, bound: float) -> bool:
    """Whether a figure reaches what is asked of it."""
    return {"<=": value <= bound, ">=": value >= bound, "|.|<=": abs(value) <= bound}[rule]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--jobs", nargs="+", choices=sorted(JOBS), default=list(JOBS))
    parser.add_argument("--keep", type=Path, help="folder for the results, which are left there (default: none is)")
    parser.add_argument("--busy", type=int, default=0, help="processes that are kept busy beside")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps({"machine": machine(), "busy": given.busy}))
    print("| job | figure | reached | asked |\n|---|---|---|---|")
    missed = 0
    with tempfile.TemporaryDirectory() as scratch, kept_busy(given.busy):
        work = given.keep or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        for name in given.jobs:
            job, asked = JOBS[name]
            for figure, value in job(given.data.resolve(), work).items():
                rule, bound = asked.get(figure, ("", 0.0))
                missed += bool(rule) and not reached(value, rule, bound)
                print(f"| {name} | {figure} | {value:.6g} | {f'{rule} {bound:g}' if rule else ''} |", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
