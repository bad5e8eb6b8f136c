"""What `/proc` says of the gateway."""

import os
import pathlib
import statistics
from collections import Counter
from dataclasses import dataclass


@dataclass
class Sample:
    seconds: float
    rss_kib: int
    threads: int
    pool_threads: int
    descriptors: int
    children: int
    cpu_seconds: float
    names: Counter[str]

    def others(self) -> int:
        """Threads that are not the pool's, which keeps what it has."""
        return self.threads - self.pool_threads


def children(pid: int) -> list[int]:
    """Of that process, the ended ones that nobody has waited for included."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == pid:
                found.append(int(entry.name))
    return found


def cpu_seconds(pid: int, children_too: bool = False) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(int(field) for field in fields[11 : 15 if children_too else 13])
    return ticks / os.sysconf("SC_CLK_TCK")


def take(pid: int, seconds: float) -> Sample:
    proc = pathlib.Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    names: Counter[str] = Counter()
    for task in (proc / "task").iterdir():
        try:
            names[(task / "comm").read_text().strip()] += 1
        except OSError:
            pass
    return Sample(
        seconds=seconds,
        rss_kib=int(status["VmRSS"].split()[0]),
        threads=names.total(),
        pool_threads=sum(n for name, n in names.items() if name.startswith("http-")),
        descriptors=len(os.listdir(proc / "fd")),
        children=len(children(pid)),
        cpu_seconds=cpu_seconds(pid),
        names=names,
    )


def percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def rss_of_third(samples: list[Sample], third: int) -> float:
    """The median of that third of the samples (0, 1, 2), in MiB."""
    size = len(samples) // 3
    return statistics.median(sample.rss_kib for sample in samples[third * size : (third + 1) * size]) / 1024
