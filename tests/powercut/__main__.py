"""`make powercut N=1000`: real power cuts under real processes; see disk.py for what a cut is.

N cuts under the store's and the edge's own objects, several of them busy at once, and one in ten more under the whole
daemons with traffic between them. Ends with 1 if something was lost, doubled or torn, with 3 if the harness is void.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys

from tests.powercut import disk
from tests.powercut.nursery import Nursery

MODULES = ("tests.powercut.works", "tests.powercut.daemons")
_PROOF_CUTS = 10


def main() -> int:
    """Run the cuts and print what came of them."""
    options = argparse.ArgumentParser(prog="make powercut")
    options.add_argument("--cuts", type=int, default=1000, help="cuts under busy objects of store and edge")
    options.add_argument("--daemons", type=int, help="cuts under whole daemons; a tenth of --cuts if not given")
    options.add_argument("--proof", type=int, default=_PROOF_CUTS, help="cuts with synchronous=NORMAL")
    options.add_argument("--seed", type=int, default=None)
    options.add_argument("--json", action="store_true", help="print one JSON object at the end")
    given = options.parse_args()
    reason = disk.why_not()
    if reason is not None:
        print(f"no power cuts here: {reason}", file=sys.stderr)
        return 2
    seed = given.seed if given.seed is not None else secrets.randbelow(1 << 32)
    disk.enter_namespace()
    nursery = Nursery(MODULES)
    # Imported by the nursery as well; here after it, so that it stays without threads.
    from tests.powercut.cuts import VoidError, cut_often, prove_harness
    from tests.powercut.daemons import cut_daemons

    kinds = disk.file_systems()
    print(f"seed {seed}, file systems {', '.join(kinds)}", flush=True)
    try:
        shares = prove_harness(nursery, kinds, given.proof, seed)
    except VoidError as error:
        print(error, file=sys.stderr)
        return 3
    told = ", ".join(f"{share:.0%} of {given.proof} cuts on {kind}" for kind, share in shares.items())
    print(f"synchronous=NORMAL loses acknowledged parcels in {told}: the harness works", flush=True)
    daemons = given.daemons if given.daemons is not None else given.cuts // 10
    tallies = {
        "objects": cut_often(nursery, kinds, given.cuts, seed),
        "daemons": cut_daemons(nursery, kinds, daemons, seed),
    }
    nursery.close()
    for name, tally in tallies.items():
        each = tally.seconds / tally.cuts if tally.cuts else 0.0
        where = ", ".join(f"{count} on {kind}" for kind, count in tally.by_disk.items())
        print(
            f"{name}: {tally.cuts} cuts ({where}), {tally.told} promises, {each:.2f} s a cut, wrong: {len(tally.wrong)}"
        )
        for line in tally.wrong:
            print(f"  {line}")
    if given.json:
        found = {
            name: {"cuts": tally.cuts, "told": tally.told, "wrong": tally.wrong, "by_disk": tally.by_disk}
            for name, tally in tallies.items()
        }
        print(json.dumps({"seed": seed, "normal_lost": shares, **found}))
    return 1 if any(tally.wrong for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
