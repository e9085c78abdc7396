"""`make sim SEED=1 TRUCKS=50 DAYS=30`: simulate a fleet, check every promise, and say how fast that was."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace

import click

from tests.sim.faults import STORMY
from tests.sim.planted import BUGS, first_seed
from tests.sim.regressions import REGRESSIONS
from tests.sim.run import Outcome, run
from tests.sim.silence import keep_silent
from tests.sim.world import Plan
from tests.sim.years import fleets


@click.command()
@click.option("--seed", default=1, show_default=True, help="What everything follows from.")
@click.option("--seeds", default=1, show_default=True, help="How many seeds, from --seed on.")
@click.option("--trucks", default=50, show_default=True)
@click.option("--days", default=30.0, show_default=True, help="Days of trouble; then all links heal.")
@click.option("--row-every-s", default=1_800.0, show_default=True, help="Mean time between two rows of a truck.")
@click.option("--planted", is_flag=True, help="Plant ten bugs one by one; each must be found within 200 seeds.")
@click.option("--regressions", is_flag=True, help="Run every seed that ever found a bug of the product.")
@click.option("--silence", is_flag=True, help="A truck hears nothing for 90 days, with room on its disk for 20.")
@click.option("--years", type=float, help="Simulate so many truck-years of ordinary troubles, in several processes.")
@click.option("--processes", default=os.cpu_count() or 1, show_default=True, help="How many, for --years.")
@click.option("--replay", is_flag=True, help="Run each seed twice and compare the runs.")
def main(
    seed: int,
    seeds: int,
    trucks: int,
    days: float,
    row_every_s: float,
    planted: bool,
    regressions: bool,
    silence: bool,
    years: float | None,
    processes: int,
    replay: bool,
) -> None:
    """Simulate a fleet. A failed check prints the failing step, and the history of the parcel concerned.

    \b
    make sim SEED=5 TRUCKS=4 DAYS=4      bad weather
    make sim ARGS="--years 100"          many fleets, ordinary years
    make sim ARGS=--silence              ninety days without a link
    make sim ARGS=--regressions          seeds that once found a bug
    """
    if planted:
        sys.exit(_plant())
    if regressions:
        sys.exit(_again())
    if years is not None:
        sys.exit(_years(years, seed, processes))
    if silence:
        click.echo(keep_silent(seed=seed))
        return
    began, truck_days = time.process_time(), 0.0
    plan = Plan(seed=seed, trucks=trucks, days=days, row_every_s=row_every_s)
    for each in range(seed, seed + seeds):
        outcome = run(replace(plan, seed=each), STORMY)
        truck_days += outcome.days * trucks
        _tell(outcome)
        if replay and (again := run(replace(plan, seed=each), STORMY)).digest != outcome.digest:
            sys.exit(f"seed {each} gave two different runs: {outcome.digest} and {again.digest}")
        if outcome.failure is not None:
            sys.exit(f"{outcome.failure}\n\nAgain: make sim SEED={each} TRUCKS={trucks} DAYS={days:g}")
    minutes = (time.process_time() - began) / 60
    years = truck_days / 365.25
    click.echo(
        f"{seeds} seeds, {years:.2f} truck-years in {minutes:.1f} min of one core: {years / minutes:.2f} a minute"
    )


def _years(wanted: float, first_seed: int, processes: int) -> int:
    began, years, core_s, broken = time.monotonic(), 0.0, 0.0, []
    for fleet in fleets(wanted, first_seed=first_seed, processes=processes):
        years, core_s = years + fleet.years, core_s + fleet.core_s
        left_min = (time.monotonic() - began) / 60 * max(0.0, wanted / years - 1)
        click.echo(
            f"seed {fleet.seed} {'fails' if fleet.failure else 'holds'}: {fleet.rows} rows, {fleet.lives} lives, "
            f"{fleet.steps} steps, digest {fleet.digest[:16]}; {years:.1f} of {wanted:g} truck-years, "
            f"about {left_min:.0f} min left"
        )
        if fleet.failure:
            broken.append(fleet.seed)
            click.echo(f"{fleet.failure}\n\nAgain: make sim ARGS='--years 1 --processes 1' SEED={fleet.seed}", err=True)
    click.echo(
        f"{years:.2f} truck-years in {core_s / 60:.1f} min of one core: {60 * years / core_s:.2f} a minute; "
        f"{len(broken)} seeds broke a promise{': ' + ', '.join(map(str, broken)) if broken else ''}"
    )
    return 1 if broken else 0


def _plant() -> int:
    missed = 0
    for name, bug in BUGS.items():
        outcome = first_seed(bug)
        missed += outcome is None
        found = "NOT FOUND" if outcome is None else f"seed {outcome.seed}: {str(outcome.failure).splitlines()[0]}"
        click.echo(f"{name}: {found}")
    return missed


def _again() -> int:
    failed = 0
    for each in REGRESSIONS:
        outcome = each.run()
        failed += outcome.failure is not None
        _tell(outcome)
        click.echo(f"  once found: {each.found}" + (f"\n{outcome.failure}" if outcome.failure is not None else ""))
    return failed


def _tell(outcome: Outcome) -> None:
    verdict = "fails" if outcome.failure is not None else "holds"
    click.echo(
        f"seed {outcome.seed} {verdict}: {outcome.days:.1f} days, {outcome.rows} rows, {outcome.lives} lives, "
        f"{outcome.steps} steps, digest {outcome.digest[:16]}"
    )


if __name__ == "__main__":
    main()
