"""`make faults`: every call of every scene fails once in each way; ends with 1 if anything is lost, doubled or torn.

With `--sick` a whole daemon lives on a disk that is full or read-only for a while.
"""

from __future__ import annotations

import argparse
import sys

from tests.faults import inject
from tests.powercut import disk
from tests.powercut.nursery import Nursery

MODULES = ("tests.faults.contact", "tests.faults.scenes", "tests.powercut.daemons")


def main() -> int:
    """Try every call and print what came of it."""
    options = argparse.ArgumentParser(prog="make faults")
    options.add_argument("--scene", action="append", help="only this scene; may be repeated")
    options.add_argument("--sick", action="store_true", help="a disk that is full or read-only, instead (needs root)")
    options.add_argument("--case", action="append", help="with --sick: only full or read-only; may be repeated")
    options.add_argument("--seconds", type=float, default=60.0, help="how long a disk is sick")
    given = options.parse_args()
    if given.sick:
        return _suffer(given.case or ["full", "read-only"], given.seconds)
    if (reason := inject.why_not()) is not None:
        print(f"no call can be made to fail here: {reason}", file=sys.stderr)
        return 2
    # Forked before there is a thread.
    nursery = Nursery(MODULES)
    from tests.faults.calls import scenes, templates, try_all
    from tests.faults.scenes import be_quiet

    be_quiet()

    found = {name: scene for name, scene in scenes(nursery).items() if not given.scene or name in given.scene}
    wrong = 0
    with templates(found) as made:
        for name, scene in found.items():
            tally = try_all(nursery, name, scene, made[name])
            calls = ", ".join(f"{count} x {call}" for call, count in tally.calls.items())
            print(f"{name}: {tally.runs} runs in {tally.seconds:.0f} s; {calls}; wrong: {len(tally.wrong)}", flush=True)
            for line in tally.wrong:
                print(f"  {line}", flush=True)
            wrong += len(tally.wrong)
    nursery.close()
    return 1 if wrong else 0


def _suffer(names: list[str], seconds: float) -> int:
    if (reason := disk.why_not()) is not None:
        print(f"no disk can be made sick here: {reason}", file=sys.stderr)
        return 2
    disk.enter_namespace()
    nursery = Nursery(("tests.powercut.daemons",))
    from tests.faults.scenes import be_quiet
    from tests.faults.sick import describe, suffer

    be_quiet()
    wrong = 0
    for name in names:
        case = suffer(nursery, name, sick_s=seconds)
        print(describe(case), flush=True)
        for line in case.wrong:
            print(f"  {line}", flush=True)
        wrong += len(case.wrong)
    nursery.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
