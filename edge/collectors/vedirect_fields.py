"""The fields of VE.Direct text frames: what each becomes as a channel, and what values its hardware can have.

From Victron's "VE.Direct Protocol". `per` is how many of the wire's units make one of the channel's
steps: V comes in mV and goes as hundredths of a volt, which is what the charger measures. Deliberately absent: product
and serial numbers, and texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Product = Literal["mppt", "bmv", "inverter"]


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A channel's name, unit and scale; wire units a step (`per`); the wire's plausible range; a likely value."""

    name: str
    unit: str
    scale: int
    per: int
    minimum: int
    maximum: int
    nominal: int = 0
    typical_change: int = 1


_MV: Final = (-1_000_000, 1_000_000)
_MA: Final = (-2_000_000, 2_000_000)
_W: Final = (-200_000, 200_000)
_CODE: Final = (0, 0xFFFF_FFFF)
_KWH: Final = (0, 100_000_000)

FIELDS: Final[Mapping[str, FieldSpec]] = MappingProxyType(
    {
        "V": FieldSpec("battery_v", "V", 100, 10, 0, 1_000_000, 1300, 2),
        "V2": FieldSpec("battery2_v", "V", 100, 10, 0, 1_000_000, 1300, 2),
        "VS": FieldSpec("aux_v", "V", 100, 10, *_MV, 1300, 2),
        "VM": FieldSpec("midpoint_v", "V", 100, 10, 0, 1_000_000, 1300, 2),
        "DM": FieldSpec("midpoint_deviation", "%", 10, 1, -1000, 1000, 0, 1),
        "I": FieldSpec("battery_a", "A", 10, 100, *_MA, 0, 3),
        "P": FieldSpec("battery_w", "W", 1, 1, *_W, 0, 5),
        "VPV": FieldSpec("panel_v", "V", 10, 100, 0, 1_000_000, 0, 10),
        "PPV": FieldSpec("panel_w", "W", 1, 1, 0, 200_000, 0, 10),
        "IL": FieldSpec("load_a", "A", 10, 100, *_MA, 0, 2),
        "LOAD": FieldSpec("load_on", "", 1, 1, 0, 1, 1, 0),
        "Relay": FieldSpec("relay_on", "", 1, 1, 0, 1, 0, 0),
        "Alarm": FieldSpec("alarm_on", "", 1, 1, 0, 1, 0, 0),
        "AR": FieldSpec("alarm_reason", "", 1, 1, *_CODE, 0, 0),
        "WARN": FieldSpec("warning_reason", "", 1, 1, *_CODE, 0, 0),
        "OR": FieldSpec("off_reason", "", 1, 1, *_CODE, 0, 0),
        "CS": FieldSpec("charge_state", "", 1, 1, 0, 255, 0, 0),
        "MPPT": FieldSpec("tracker_state", "", 1, 1, 0, 255, 0, 0),
        "MODE": FieldSpec("mode", "", 1, 1, 0, 255, 0, 0),
        "ERR": FieldSpec("error", "", 1, 1, 0, 255, 0, 0),
        "T": FieldSpec("battery_t", "Cel", 1, 1, -60, 150, 25, 0),
        "SOC": FieldSpec("soc", "%EL", 10, 1, 0, 1000, 900, 1),
        "CE": FieldSpec("consumed_ah", "Ah", 10, 100, -100_000_000, 1_000_000, 0, 2),
        # -1 means that the battery is not being emptied, which is "no time", not a time.
        "TTG": FieldSpec("time_to_go", "min", 1, 1, 0, 1_000_000, 0, 5),
        "H4": FieldSpec("cycles", "count", 1, 1, 0, 1_000_000, 0, 0),
        "H6": FieldSpec("drawn_ah", "Ah", 10, 100, -2_000_000_000, 0, 0, 2),
        "H7": FieldSpec("battery_v_min", "V", 100, 10, *_MV, 1150, 0),
        "H8": FieldSpec("battery_v_max", "V", 100, 10, *_MV, 1450, 0),
        "H17": FieldSpec("discharged", "kWh", 100, 1, *_KWH, 0, 0),
        "H18": FieldSpec("charged", "kWh", 100, 1, *_KWH, 0, 0),
        "H19": FieldSpec("yield_total", "kWh", 100, 1, *_KWH, 0, 0),
        "H20": FieldSpec("yield_today", "kWh", 100, 1, *_KWH, 0, 0),
        "H21": FieldSpec("panel_w_max_today", "W", 1, 1, 0, 200_000, 0, 0),
        "H22": FieldSpec("yield_yesterday", "kWh", 100, 1, *_KWH, 0, 0),
        "H23": FieldSpec("panel_w_max_yesterday", "W", 1, 1, 0, 200_000, 0, 0),
        "HSDS": FieldSpec("day", "count", 1, 1, 0, 366, 0, 0),
        "AC_OUT_V": FieldSpec("ac_v", "V", 10, 10, 0, 100_000, 2300, 5),
        "AC_OUT_I": FieldSpec("ac_a", "A", 10, 1, -10_000, 10_000, 0, 1),
        "AC_OUT_S": FieldSpec("ac_va", "VA", 1, 1, 0, 200_000, 0, 5),
    }
)

# What each product family sends, less what can be worked out from the rest.
PRODUCTS: Final[Mapping[Product, tuple[str, ...]]] = MappingProxyType(
    {
        "mppt": ("V", "I", "VPV", "PPV", "CS", "ERR", "LOAD", "IL", "H19", "H20", "H21", "H22", "H23"),
        "bmv": ("V", "I", "CE", "SOC", "TTG", "Alarm", "Relay", "AR", "H4", "H17", "H18"),
        "inverter": ("V", "AC_OUT_V", "AC_OUT_I", "AC_OUT_S", "MODE", "CS", "AR", "WARN"),
    }
)
