"""The long run: `make fuzz ARGS="--seconds 60 --seed 1"`; one target, or one input again, by name.

Exit status 1 when a bar of the design was broken; each fault is printed with its input, which `--replay HEX` repeats.
"""

from __future__ import annotations

import argparse
import random
import sys

from tests.fuzz.engine import Findings, replay, run
from tests.fuzz.instruments import instrument_targets
from tests.fuzz.parsers import parser_targets
from tests.fuzz.servers import server_targets


def main(argv: list[str]) -> int:
    """Run what the arguments say and return the exit status."""
    targets = {each.name: each for each in (*parser_targets(), *instrument_targets(), *server_targets())}
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long in all, shared by the targets")
    parser.add_argument("--count", type=int, help="how many inputs for each target, instead of a time")
    parser.add_argument("--seed", type=int, help="replays a run; drawn and printed when it is left out")
    parser.add_argument("--target", action="append", choices=sorted(targets), help="only this one; may be repeated")
    parser.add_argument("--replay", metavar="HEX", help="feed this one input to the one target named")
    options = parser.parse_args(argv)
    chosen = [targets[name] for name in options.target or targets]
    if options.replay is not None:
        if len(chosen) != 1:
            parser.error("--replay needs exactly one --target")
        return _tell([replay(chosen[0], bytes.fromhex(options.replay))])
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    seconds = None if options.count is not None else options.seconds / len(chosen)
    return _tell([_shown(run(each, seed=seed, count=options.count, seconds=seconds)) for each in chosen])


def _shown(found: Findings) -> Findings:
    print(
        f"{found.target:15} {found.inputs:>9,} inputs  slowest {found.slowest_s * 1000:7.1f} ms  "
        f"memory +{found.memory_bytes / 2**20:.1f} MiB  logs {found.log_bytes:,} B  faults {found.fault_count}",
        flush=True,
    )
    return found


def _tell(findings: list[Findings]) -> int:
    broken = [bar for found in findings for bar in found.broken_bars()]
    for bar in broken:
        print(bar)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
