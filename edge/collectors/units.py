"""The units that a channel may have: SenML's registry (RFC 8428 section 12.1, extended by RFC 8798).

The empty unit is for states and codes. Deliberately absent: conversion; the gateway shows what the channel declares.
"""

from __future__ import annotations

from typing import Final

_RFC_8428: Final = (
    "m kg g s A K cd mol Hz rad sr N Pa W J C V F Ohm S Wb T H Cel lm lx Bq Gy Sv kat m2 m3 l m/s m/s2 m3/s l/s W/m2 "
    "cd/m2 bit bit/s lat lon pH dB dBW Bspl count / % %RH %EL EL 1/s 1/min beat/min beats S/m"
)
_RFC_8798: Final = (
    "B VA VAs var vars J/m kg/m3 deg NTU ms min h MHz kW kVA kvar Ah Wh kWh varh kvarh kVAh Wh/km KiB GB Mbit/s B/s "
    "MB/s mV mA dBm ug/m3 mm/h m/h ppm /100 /1000 hPa mm cm km km/h"
)

SENML_UNITS: Final[frozenset[str]] = frozenset(["", *_RFC_8428.split(), *_RFC_8798.split()])
