"""Check every architecture in every layout: `python -m tests.parity.sweep [PATTERN …]`.

Prints a line per case and exits 1 if any differs.
"""

from __future__ import annotations

import sys
import time
from fnmatch import fnmatch

from tests.parity.check import check
from tests.parity.golden import cases
from torchclas import models


def main(patterns: list[str]) -> int:
    known = set(models.architectures())
    chosen = [c for c in cases() if c[0] in known and (not patterns or any(fnmatch(c[0], p) for p in patterns))]
    failed = 0
    for arch, layout in chosen:
        start = time.perf_counter()
        try:
            outcome = check(arch, layout)
            equal, shown = outcome.equal, "  ".join(f"{k} {v:.1e}" for k, v in outcome.errors.items())
        except Exception as error:
            equal, shown = False, f"{type(error).__name__}: {error}"
        failed += not equal
        seconds = time.perf_counter() - start
        print(f"{'equal ' if equal else 'DIFFER'} {arch:45} {layout:9} {shown}  ({seconds:.0f} s)", flush=True)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
