"""A pool shared out among trucks: whole units, never more than there is, and nobody below what is spent. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def shared_evenly(whole: int, trucks: Sequence[str]) -> dict[str, int]:
    """Return equal parts; what does not divide goes to the first ones."""
    each, rest = divmod(whole, len(trucks))
    return {truck: each + (at < rest) for at, truck in enumerate(sorted(trucks))}


def shared_out(whole: int, used: Mapping[str, int], wish: Mapping[str, int]) -> dict[str, int]:
    """Return parts in proportion to what each truck is expected to use of the rest (`wish` less `used`).

    Each has at least what it used already; where nobody is expected to use any more, the rest is shared evenly. A pool
    that is smaller than what was used is given in proportion to that.
    """
    spent = sum(used.values())
    if spent >= whole:
        return _in_proportion(whole, used)
    more = _in_proportion(whole - spent, {truck: max(0, wish.get(truck, 0) - used[truck]) for truck in used})
    return {truck: used[truck] + more[truck] for truck in used}


def _in_proportion(whole: int, weights: Mapping[str, int]) -> dict[str, int]:
    total = sum(weights.values())
    if not total:
        return shared_evenly(whole, list(weights))
    return {truck: whole * weight // total for truck, weight in weights.items()}
