"""Shares and money as people type them: `20%`, `10%,50%,100%`, `12.50USD`."""

from __future__ import annotations

import re

import click

_SHARE = re.compile(r"([0-9]{1,3})\s*%?")
_MONEY = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,3}))?\s*([A-Za-z]{3})")


def share(text: str) -> int:
    """Return a share in percent, 1 to 100."""
    match = _SHARE.fullmatch(text.strip())
    if match is None or not 1 <= int(match[1]) <= 100:
        raise click.BadParameter(f"{text!r} is not a share: write 20%")
    return int(match[1])


def shares(text: str) -> tuple[int, ...]:
    """Return the stages of a rollout before the last: growing shares, the last of which may be left out (100 %)."""
    found = [share(each) for each in text.split(",")]
    if found != sorted(set(found)):
        raise click.BadParameter(f"{text!r}: each stage reaches more trucks than the one before: 10%,50%,100%")
    if len(found) > 16:
        raise click.BadParameter("a rollout has at most 16 stages")
    return tuple(each for each in found if each < 100)


def priced(text: str) -> tuple[int, str]:
    """Return an amount of money as (thousandths, currency)."""
    match = _MONEY.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is not an amount of money: write 40USD or 12.50EUR")
    return int(match[1]) * 1_000 + int((match[2] or "").ljust(3, "0")), match[3].upper()
