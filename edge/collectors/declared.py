"""Channels that the operator declares, for sources whose words nobody can know beforehand, and reading their values.

`[[collector.channels]]` tables say what a value is called, its unit, its honest resolution (`decimals`) and what range
it can have. What the source then says is a stranger's: NaN, texts, huge numbers, nested things all read as missing.
Deliberately absent: formulas; a factor is enough to change a unit, and whatever needs more belongs to the reader.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec

from edge.collectors.base import ChannelSpec
from edge.collectors.units import SENML_UNITS

# What a double counts exactly; beyond it a "value" would be an accident of rounding.
_EXACT_MAX: Final = float(1 << 53)
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")
_TEXT_CHARS_MAX: Final = 96


class ChannelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One channel: what the source says times `factor` is in `unit`, rounded to `decimals` digits after the point.

    Outside of `minimum` to `maximum` it is missing. `words` turns the source's texts into numbers (`online = 1`).
    `nominal` and `typical_change` only make the first batches smaller.
    """

    name: str
    unit: str = ""
    decimals: Annotated[int, msgspec.Meta(ge=0, le=9)] = 0
    factor: float = 1.0
    minimum: float | None = None
    maximum: float | None = None
    nominal: float = 0.0
    typical_change: float | None = None
    words: Annotated[dict[str, int], msgspec.Meta(max_length=64)] = msgspec.field(default_factory=dict)

    @property
    def scale(self) -> int:
        """Return how many steps make one of the unit."""
        return int(10**self.decimals)

    def problem(self) -> str | None:
        """Return `key: reason` for what the types cannot say, None if all is well."""
        if self.unit not in SENML_UNITS:
            return f"unit: {self.unit[:20]!r} is no unit of RFC 8428 or RFC 8798"
        if not math.isfinite(self.factor) or self.factor == 0:
            return "factor: must be finite and not 0"
        for key in ("minimum", "maximum", "nominal", "typical_change"):
            value = getattr(self, key)
            if value is not None and not abs(value) * self.scale <= _EXACT_MAX:
                return f"{key}: is too large for {self.decimals} decimals"
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            return "minimum: is more than maximum"
        try:
            ChannelSpec(self.name)
        except ValueError as error:
            return f"name: {error}"
        return None

    def spec(self, full_name: str) -> ChannelSpec:
        """Return the channel under its full name; ValueError if the prefix makes that no SenML name."""
        change = 1 if self.typical_change is None else max(0, round(self.typical_change * self.scale))
        return ChannelSpec(full_name, self.unit, self.scale, round(self.nominal * self.scale), change)

    def read(self, said: object) -> int | None:
        """Return the scaled integer for what the source said, None for what is no number or cannot be."""
        value = read_number(said, self.words)
        return None if value is None else scaled(value * self.factor, self.scale, self.minimum, self.maximum)


def read_number(said: object, words: Mapping[str, int] | None = None) -> float | None:
    """Return a number, a text that is one, a truth value or a known word as a float; None for anything else."""
    if isinstance(said, str):
        said = said.strip() if len(said) <= _TEXT_CHARS_MAX else ""
        if words and said in words:
            return float(words[said])
        return float(said) if _NUMBER.fullmatch(said) else None
    if isinstance(said, float):
        return said
    # An integer of a million digits would raise in float().
    return float(said) if isinstance(said, int) and abs(said) <= _EXACT_MAX else None


def scaled(value: float, scale: int, minimum: float | None = None, maximum: float | None = None) -> int | None:
    """Return `value` in steps of 1/`scale`, None if it is no number, out of range, or more than a double counts."""
    if not abs(value) * scale <= _EXACT_MAX:  # NaN too
        return None
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        return None
    return round(value * scale)


def check_channels(channels: Sequence[ChannelSettings]) -> None:
    """Raise ValueError, starting with the key, for the first channel that does not hold."""
    for index, channel in enumerate(channels):
        if problem := channel.problem():
            raise ValueError(f"channels[{index}].{problem}")
        if any(channel.name == other.name for other in channels[:index]):
            raise ValueError(f"channels[{index}].name: {channel.name!r} is used twice")


def check_picked(picked: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError if a source's own channels are picked twice, or one that it does not have."""
    for index, name in enumerate(picked):
        if name not in known:
            raise ValueError(f"channels[{index}]: there is no {name[:40]!r}; there are: {', '.join(known)}")
    if len(set(picked)) != len(picked):
        raise ValueError("channels: names one twice")


def json_at(document: object, pointer: str) -> object:
    """Return what RFC 6901 pointer `pointer` names in decoded JSON, None if there is nothing; "" is all of it."""
    for token in pointer.split("/")[1:]:
        token = token.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict):
            document = document.get(token)
        elif isinstance(document, list) and re.fullmatch("0|[1-9][0-9]{0,5}", token):
            document = document[int(token)] if int(token) < len(document) else None
        else:
            return None
    return document


def check_pointer(pointer: str) -> str | None:
    """Return what is wrong with a JSON pointer, None if nothing is."""
    if pointer and not pointer.startswith("/"):
        return f"{pointer[:40]!r} is no JSON pointer (RFC 6901): it begins with /"
    return "has too many parts" if pointer.count("/") > 16 else None
