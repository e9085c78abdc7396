from __future__ import annotations

from edge.collectors.units import SENML_UNITS


def test_registered_units_of_both_documents_are_known_and_spellings_are_exact():
    assert {"Cel", "%EL", "V", "", "KiB", "Wh", "dBm"} <= SENML_UNITS
    assert not {"C°", "kB", "volt", "KIB"} & SENML_UNITS
