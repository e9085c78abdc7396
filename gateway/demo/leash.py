"""`python -m gateway.demo.leash MODULE ARGS...`: run a module as `python -m MODULE ARGS...` that ends with its parent.

However the demo ends, SIGKILL included, nothing that it started may stay behind. Linux only (prctl(2)); elsewhere the
module just runs.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM when the process `parent` ends; end now if it has ended already."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:
        raise SystemExit(1)


def main() -> None:
    """Put on the leash, then become the module."""
    parent, module, *arguments = sys.argv[1:]
    end_with_parent(int(parent))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
