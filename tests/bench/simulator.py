"""How fast the simulator is: truck-years of an ordinary fleet a minute of one core, and that all promises held."""

from __future__ import annotations

from tests.sim.years import fleets

NAME = "simulator"
_HELP = "python -m tests.bench simulator [YEARS]"


def run(args: list[str]) -> list[tuple[str, str, str, str]]:
    """Simulate a few truck-years in one process after the other."""
    if len(args) > 1 or (args and not args[0].replace(".", "", 1).isdecimal()):
        raise SystemExit(_HELP)
    found = list(fleets(float(args[0]) if args else 1.0, first_seed=1, processes=1))
    broken = [each.seed for each in found if each.failure]
    if broken:
        raise SystemExit(f"promises are broken in seeds {broken}: python -m tests.sim --years 1 --seed {broken[0]}")
    years, minutes = sum(each.years for each in found), sum(each.core_s for each in found) / 60
    return [("truck-years a minute of one core", f"{years / minutes:.2f}", "thousands of truck-years", "10")]
