"""The end of the demo: what arrived, what it cost, what is still under way, and whether all that should work did."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.demo.picture import TruckPicture

# What a truck may still hold at the end: open batches, and parcels whose acknowledgement is on its way.
_ROWS_BEHIND_MAX = 200


@dataclass(frozen=True, slots=True)
class TruckResult:
    """One truck at the end. Bytes are IP bytes, both directions; `carried_bytes` is what the relays saw on its links.

    `telemetry_bytes` is what batches and their acknowledgements took, by the gateway's ledger.
    """

    picture: TruckPicture
    missing: int
    rows_at_restart: int
    telemetry_bytes: int
    carried_bytes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Result:
    """Everything the summary says; the times are seconds from the start of the command, None if it never was."""

    trucks: tuple[TruckResult, ...]
    first_sample_s: float | None
    passed_s: float
    configured: str | None
    bundle: str
    wanted_versions: tuple[str, ...]
    activated: dict[str, dict[str, float]]
    killed_s: float | None
    back_s: float | None
    troubles: tuple[str, ...]


def failures(result: Result) -> list[str]:
    """Return what should have worked and did not, a sentence each; none if all is well."""
    found = list(result.troubles)
    if result.first_sample_s is None:
        found.append("no sample reached the gateway")
    if result.killed_s is None or result.back_s is None:
        found.append("the gateway was not killed and restarted: the time was too short")
    for truck in result.trucks:
        picture = truck.picture
        found += [f"{picture.name}: {each}" for each in _failures_of(truck, result)]
    return found


def _failures_of(truck: TruckResult, result: Result) -> list[str]:
    picture, found = truck.picture, []
    if truck.missing:
        found.append(f"{truck.missing} parcels are missing between those that arrived")
    if picture.rows_arrived > picture.rows_recorded:
        found.append(f"{picture.rows_arrived} rows arrived of {picture.rows_recorded} that were recorded")
    if picture.rows_recorded - picture.rows_arrived > _ROWS_BEHIND_MAX:
        found.append(f"{picture.rows_recorded - picture.rows_arrived} rows have not arrived")
    if result.back_s is not None and picture.rows_arrived <= truck.rows_at_restart:
        found.append("nothing arrived after the restart of the gateway")
    configured = next((each.active for each in picture.versions if each.name == "config"), None)
    if result.configured is None or configured != result.configured:
        found.append(f"configuration {result.configured or '(none was set)'} is not active")
    found += [
        f"{result.bundle} {label} was not activated"
        for label in result.wanted_versions
        if picture.name not in result.activated.get(label, {})
    ]
    return found


def report(result: Result) -> list[str]:
    """Return the summary's lines."""
    rows = sum(each.picture.rows_arrived for each in result.trucks)
    batches = sum(each.picture.batches for each in result.trucks)
    queued = sum(each.picture.queued for each in result.trucks)
    first = "never" if result.first_sample_s is None else f"{result.first_sample_s:.1f} s after the start"
    lines = [
        f"first sample     {first}",
        f"telemetry        {rows} samples in {batches} batches arrived, {_each(result)} bytes each on the link, "
        "headers and acknowledgements included",
        f"still queued     {queued} parcels",
    ]
    for truck in result.trucks:
        picture = truck.picture
        paid = ", ".join(
            f"{each.name} {each.spent_bytes:,} B for {each.spent_milli / 1000:.4f} {each.currency}"
            f" (the relay carried {truck.carried_bytes.get(each.name, 0):,})"
            for each in picture.links
        )
        lines.append(f"{picture.name:<16} {picture.rows_arrived} of {picture.rows_recorded} samples; {paid}")
    for label in result.wanted_versions:
        times = result.activated.get(label, {})
        shown = ", ".join(f"{name} at {at_s:.0f} s" for name, at_s in times.items()) or "no truck"
        lines.append(f"{(result.bundle + ' ' + label):<16} active on {shown}")
    if result.killed_s is not None and result.back_s is not None:
        missing = sum(each.missing for each in result.trucks)
        after = sum(each.picture.rows_arrived - each.rows_at_restart for each in result.trucks)
        lines.append(
            f"restart          killed at {result.killed_s:.0f} s, back at {result.back_s:.0f} s: "
            f"{after} samples arrived since, {missing} parcels missing"
        )
    return lines


def _each(result: Result) -> str:
    rows = sum(each.picture.rows_arrived for each in result.trucks)
    telemetry = sum(each.telemetry_bytes for each in result.trucks)
    return f"{telemetry / rows:.0f}" if rows and telemetry else "-"
