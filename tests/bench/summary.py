#!/usr/bin/env python3
"""The benchmark's table: medians over the rounds, and ratios to nginx of the same round.

    summary.py RESULTS RSS IDLE_KIB PEAK_KIB BINARY_BYTES       (called by run.sh)

Exits 1 when any answer was wrong.
"""

import collections
import statistics
import sys

results_file, rss_file, idle, peak, binary = sys.argv[1:]
rounds: dict[str, dict[str, dict[str, tuple[float, ...]]]] = collections.defaultdict(lambda: collections.defaultdict(dict))
errors = 0
for line in open(results_file):
    connections, number, target, *values, bad = line.split()
    rounds[connections][number][target] = tuple(map(float, values))
    errors += int(bad)

print(f"\n{'':>11} {'target':<8} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'of nginx':>10} {'(rounds)':>12}")
for connections, by_round in rounds.items():
    for target in ("direct", "nginx", "gateway"):
        rate, p50, p99 = (statistics.median(r[target][i] for r in by_round.values()) for i in range(3))
        ratios = [r[target][0] / r["nginx"][0] for r in by_round.values()]
        spread = f"({min(ratios):.2f}-{max(ratios):.2f})"
        print(
            f"{connections + ' conn.':>11} {target:<8} {rate:>10.0f} {p50:>8.3f} {p99:>8.3f} "
            f"{statistics.median(ratios):>9.2f}x {spread:>12}"
        )

loaded: dict[str, int] = {}
for line in open(rss_file):
    connections, kib = line.split()
    loaded[connections] = max(loaded.get(connections, 0), int(kib))
print("\ngateway's resident memory:", f"idle {int(idle) / 1024:.1f} MiB,", end=" ")
print(*(f"{kib / 1024:.1f} MiB at {n} connections," for n, kib in loaded.items()), f"peak {int(peak) / 1024:.1f} MiB")
print(f"gateway's binary: {int(binary) / 1024 / 1024:.2f} MiB ({binary} bytes)")
print(f"{errors} errors")
sys.exit(1 if errors else 0)
