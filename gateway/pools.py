"""Fleet pools: one cap for a group's link, given out in grants. What trucks may spend together never exceeds it.

A truck goes by the grant in the configuration that it has applied, which may be an older one: whoever raises a grant
has to wait until the trucks whose grants were lowered for it have said that they applied that. So a configuration
whose grants and those still held could come to more than the pool is refused here, whoever signed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.fleetbudgets import config_of
from protocol.documents import Addressee, Config, parse_document
from protocol.numbers import DocumentKind, Outcome
from protocol.tariffs import Pool, pool_excess
from store.fleet.errors import DocumentConflictError
from store.fleet.fleet import FleetStore
from store.fleet.limits import PAGE_MAX
from store.fleet.records import TruckRecord

# A stream of more versions than this between what a truck applied and now is read from its newest end.
_VERSIONS_MAX: Final = 64


class PoolExceededError(DocumentConflictError):
    """Trucks might spend more than a pool together, since some still go by larger grants."""


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool of one group. `held` is the most that each truck may spend by what it may have applied so far.

    `outside` are trucks of the group that do not go by the group's configuration, and so not by the pool.
    """

    group: str
    pool: Pool
    currency: str
    held: dict[str, int]
    outside: tuple[str, ...]

    @property
    def excess(self) -> int:
        """By how much the trucks might spend more than the pool (0: they cannot)."""
        return pool_excess(self.pool, self.held)


async def check_pools(fleet: FleetStore, config: Config) -> None:
    """Check that the pools of a new configuration cannot be exceeded; raise `PoolExceededError` naming the trucks."""
    if not config.pools:
        return
    trucks = await _trucks(fleet, config.addressee)
    stream = await _stream(fleet, config.addressee)
    for pool in config.pools:
        held = await _held(fleet, pool.link, trucks, stream)
        excess = pool_excess(pool, held)
        if excess:
            lowered = sorted(truck for truck, amount in held.items() if amount > pool.grant(truck))
            raise PoolExceededError(
                f"the trucks could spend {excess} more than the {pool.link} pool has, until {', '.join(lowered[:8])} "
                "applied a lower grant: lower those first, and raise others when they have"
            )


async def pools_of(fleet: FleetStore, group: str) -> list[PoolState]:
    """Return the pools in a group's newest configuration."""
    record = await fleet.newest_document(DocumentKind.CONFIG, f"group:{group}")
    if record is None:
        return []
    config, _ = parse_document(record.signed, Config)
    if not config.pools:
        return []
    trucks = await _trucks(fleet, config.addressee)
    stream = await _stream(fleet, config.addressee)
    currencies = {each.link: each.currency for each in config.tariffs}
    read: dict[bytes, Config] = {}
    inside = {each.name: await config_of(fleet, each, read) == config for each in trucks}
    return [
        PoolState(
            group=group,
            pool=pool,
            currency=currencies.get(pool.link, "USD"),
            held=await _held(fleet, pool.link, trucks, stream),
            outside=tuple(name for name, is_inside in inside.items() if not is_inside),
        )
        for pool in config.pools
    ]


async def _trucks(fleet: FleetStore, to: Addressee) -> list[TruckRecord]:
    if to.group is None:
        found = [await fleet.truck(name) for name in to.trucks]
        return [each for each in found if each is not None and each.revoked_ms is None]
    trucks: list[TruckRecord] = []
    after: str | None = None
    while page := await fleet.trucks(after=after, limit=PAGE_MAX, group=to.group):
        after = page[-1].name
        trucks += [each for each in page if each.revoked_ms is None]
    return trucks


async def _stream(fleet: FleetStore, to: Addressee) -> list[tuple[bytes, Config]]:
    """Return the versions of an addressee's configuration, newest first."""
    name = f"group:{to.group}" if to.group is not None else ",".join(sorted(to.trucks))
    found = []
    for summary in await fleet.documents(kind=DocumentKind.CONFIG, name=name, limit=_VERSIONS_MAX):
        record = await fleet.document(summary.digest)
        if record is not None:
            found.append((record.digest, parse_document(record.signed, Config)[0]))
    return sorted(found, key=lambda each: -each[1].version)


async def _held(
    fleet: FleetStore, link: str, trucks: Sequence[TruckRecord], stream: Sequence[tuple[bytes, Config]]
) -> dict[str, int]:
    """Return the largest grant that each truck may go by: any since the one that it last said it applied.

    It may have applied a later one without having been heard since. One that never said anything may have any.
    """
    held: dict[str, int] = {}
    for truck in trucks:
        applied = {
            each.digest
            for each in await fleet.holdings(truck.name)
            if each.document is DocumentKind.CONFIG and each.outcome is Outcome.APPLIED
        }
        most = 0
        for digest, config in stream:
            most = max(most, *(each.grant(truck.name) for each in config.pools if each.link == link), 0)
            if digest in applied:
                break
        held[truck.name] = most
    return held
