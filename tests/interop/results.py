"""What the checks of an interoperability run came to, and what was expected of them."""

import collections
import pathlib
import threading
import time
from fnmatch import fnmatchcase
from typing import Callable, NamedTuple


class Expected(NamedTuple):
    """A line of a list of checks that fail."""

    pattern: str
    reason: str
    file: str


def read_expected(file: pathlib.Path) -> list[Expected]:
    """Lines 'SETUP KIND REVISION CHECK REASON' as a pattern for a check's name, and the reason."""
    entries = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            words = line.split(None, 4)
            if len(words) < 5:
                raise SystemExit(f"{file.name}:{number}: a reason is missing: {line}")
            entries.append(Expected(" ".join(words[:4]), words[4], file.name))
    return entries


class Results:
    """What every check came to, beside what was expected of it; several threads may add."""

    def __init__(self, only: str, expected: list[Expected]) -> None:
        self.only, self.expected = only, expected
        # Whether every check was come to, so that a line that met none is a wrong line.
        self.complete = not only
        self.met: set[Expected] = set()
        self.count: collections.Counter[str] = collections.Counter()
        self.surprises: list[str] = []
        # How long each part took.
        self.seconds: dict[str, float] = {}
        self.lock = threading.Lock()

    def wants(self, name: str) -> bool:
        return self.only in name

    def add(self, name: str, why: str | None, seconds: float | None = None) -> None:
        """`why` it failed, or None."""
        matches = [e for e in self.expected if fnmatchcase(name, e.pattern)]
        took = f" {seconds:.1f}s" if seconds is not None else ""
        with self.lock:
            self.met.update(matches)
            if why is None and not matches:
                self.count["passed"] += 1
                print(f"ok    {name}{took}", flush=True)
            elif why is None:
                self._fail(f"{name}: passes, but is listed in {matches[0].file} ({matches[0].reason})")
            elif matches:
                self.count[matches[0].file] += 1
                print(f"xfail {name}{took} ({matches[0].reason})", flush=True)
            else:
                self._fail(f"{name}: {why[:1500]}")

    def fail(self, surprise: str) -> None:
        with self.lock:
            self._fail(surprise)

    def _fail(self, surprise: str) -> None:
        self.count["failed"] += 1
        self.surprises.append(surprise)
        print(f"FAIL  {surprise}", flush=True)

    def timed(self, part: str, run: Callable[[], None]) -> None:
        """Runs a part, and keeps how long that took."""
        began = time.monotonic()
        run()
        with self.lock:
            self.seconds[part] = time.monotonic() - began

    def longest(self) -> str:
        """The parts that took longest, for the order in which they begin."""
        parts = sorted(self.seconds.items(), key=lambda part: -part[1])[:12]
        return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in parts if seconds >= 1)

    def close(self) -> bool:
        for e in self.expected if self.complete else []:
            if e not in self.met:
                self.fail(f"{e.pattern}: a line of {e.file} that meets no check ({e.reason})")
        if self.surprises:
            print("not as expected:", *self.surprises, sep="\n  ")
        for file in sorted({e.file for e in self.expected}):
            print(f"{self.count[file]} failed as {file} says")
        print(f"{self.count['passed']} passed, {self.count['failed']} failed")
        return not self.surprises and self.count["passed"] > 0
