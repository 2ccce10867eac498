"""How many processors there are for this process, on made-up systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptycho_core.enginekit.processors import OthersLoad, affinity, available_cpus

V2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup rw\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
    "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)


def system(root: Path, groups: str, mounts: str, **files: str) -> Path:
    """A file system with the groups of this process, where they are mounted, and files below ``/sys/fs/cgroup``."""
    told = {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts}
    told |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in told.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def cpus(root: Path, allowed: int = 64, **environment: str) -> int:
    return available_cpus(root, environment, range(allowed))


def test_a_system_that_limits_nothing_leaves_the_affinity_mask(tmp_path: Path) -> None:
    assert cpus(tmp_path, 5) == 5
    system(tmp_path, "0::/user.slice\n", V2, **{"user.slice/cpu.max": "max 100000\n", "cpu.max": "nonsense"})
    assert cpus(tmp_path, 5) == 5
    assert cpus(tmp_path, 0) == 1
    assert available_cpus(tmp_path, {}) == len(affinity())


@pytest.mark.spec("BE-36")
@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ("600000 100000", "max 100000", 6),
        ("max 100000", "300000 100000", 3),
        ("800000 100000", "250000 50000", 5),
        ("290000 100000", "max 100000", 2),  # the rest of a thread would be held back
        ("399900 100000", "max 100000", 4),
        ("20000 100000", "max 100000", 1),
    ],
)
def test_version_2_of_control_groups_counts_at_every_level(
    inner: str, outer: str, expected: int, tmp_path: Path
) -> None:
    files = {"job.slice/step/cpu.max": inner + "\n", "job.slice/cpu.max": outer + "\n"}
    assert cpus(system(tmp_path, "0::/job.slice/step\n", V2, **files)) == expected


@pytest.mark.spec("BE-36")
@pytest.mark.parametrize(
    ("top", "place", "folder"),
    [
        ("/", "/slurm/job_7", "slurm/job_7"),
        ("/docker/abc", "/docker/abc", ""),  # a container sees its own group as the top
        ("/docker/abc", "/docker/abc/worker", "worker"),
        ("/", "/../../elsewhere", ""),
    ],
)
def test_version_1_of_control_groups(top: str, place: str, folder: str, tmp_path: Path) -> None:
    base = f"cpu,cpuacct/{folder}".rstrip("/")
    files = {f"{base}/cpu.cfs_quota_us": "750000\n", f"{base}/cpu.cfs_period_us": "250000\n"}
    groups = f"9:cpuset:/other\n4:cpu,cpuacct:{place}\n0::/\n"
    assert cpus(system(tmp_path, groups, V1.format(top=top), **files)) == 3


def test_version_1_without_a_quota(tmp_path: Path) -> None:
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}
    assert cpus(system(tmp_path, "4:cpu,cpuacct:/\n", V1.format(top="/"), **files), 12) == 12


@pytest.mark.spec("BE-36")
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "32"}, 4),
        ({"SLURM_CPUS_ON_NODE": "12"}, 12),
        ({"SLURM_CPUS_PER_TASK": "", "SLURM_CPUS_ON_NODE": "many"}, 64),
        ({"SLURM_CPUS_PER_TASK": "0"}, 64),
        ({"SLURM_CPUS_PER_TASK": "128"}, 64),
        ({"OMP_NUM_THREADS": "1", "NUMEXPR_MAX_THREADS": "1"}, 64),
    ],
)
def test_what_slurm_gave_is_not_exceeded(environment: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert cpus(tmp_path, **environment) == expected


def test_the_least_of_all_counts(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/job\n", V2, **{"job/cpu.max": "500000 100000\n"})
    assert cpus(root, SLURM_CPUS_PER_TASK="8") == 5
    assert cpus(root, SLURM_CPUS_PER_TASK="3") == 3
    assert cpus(root, 2, SLURM_CPUS_PER_TASK="3") == 2


class Stat:
    """A made-up ``/proc/stat`` of three processors, a clock and the seconds of this process."""

    def __init__(self, root: Path) -> None:
        self.path, self.now, self.own = root / "proc/stat", 100.0, 7.0
        self.path.parent.mkdir()
        self.busy = [0.0, 0.0, 0.0]
        self.write()

    def write(self) -> None:
        lines = [
            # user nice system idle iowait irq softirq steal guest guest_nice
            f"cpu{n} {int(50 * busy)} 3 {int(25 * busy)} 999 50 1 1 {int(25 * busy)} {int(50 * busy)} 0"
            for n, busy in enumerate(self.busy)
        ]
        self.path.write_text("\n".join(["cpu 1 2 3 4 5 6 7 8 9 0", *lines, "intr 5 0", "cpuset odd"]) + "\n")

    def go_on(self, seconds: float, *busy: float, own: float) -> None:
        self.now, self.own = self.now + seconds, self.own + own * seconds
        self.busy = [before + share * seconds for before, share in zip(self.busy, busy, strict=True)]
        self.write()


def test_what_others_keep_busy_is_what_this_process_does_not(tmp_path: Path) -> None:
    stat = Stat(tmp_path)
    look = OthersLoad((0, 2), tmp_path, lambda: stat.now, lambda: stat.own, ticks=100)
    assert look() is None  # no time has passed
    stat.go_on(2.0, 1.0, 1.0, 1.0, own=0.5)
    assert look() == pytest.approx(1.5)
    stat.go_on(4.0, 0.5, 1.0, 0.0, own=0.5)
    assert look() == pytest.approx(0.0)
    stat.go_on(0.01, 1.0, 1.0, 1.0, own=0.0)
    assert look() is None
    stat.go_on(1.0, 0.0, 1.0, 1.0, own=2.0)  # the counts of two clocks never agree to the last
    assert look() == 0.0


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    look = OthersLoad((0,), tmp_path)
    assert look() is None
    Stat(tmp_path)
    assert look() is None
