from __future__ import annotations

import json
import sys
import time

import pytest

from edge.collectors.base import RealClock, SourceError
from edge.collectors.check import check_collectors
from edge.collectors.extras import import_extra


async def test_what_is_installed_is_imported():
    assert await import_extra("json", "devices") is json


async def test_what_is_absent_is_named_with_its_extra():
    with pytest.raises(SourceError, match=r"digitruck\[snmp\]'.*\(No module named 'no_such_library'\)"):
        await import_extra("no_such_library", "snmp")


@pytest.mark.parametrize(
    ("table", "library", "extra"),
    [
        ({"kind": "snmp", "host": "127.0.0.1"}, "pysnmp.hlapi.v3arch.asyncio", "snmp"),
        ({"kind": "modem"}, "dbus_fast", "modem"),
        ({"kind": "workstations", "hosts": ["127.0.0.1"]}, "icmplib", "workstations"),
        ({"kind": "starlink"}, "starlink_grpc", "starlink"),
        ({"kind": "vedirect", "port": "/dev/null"}, "serial", "devices"),
    ],
)
async def test_a_collector_without_its_library_says_what_to_install(table, library: str, extra: str, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    (check,) = await check_collectors([{"name": "x", **table}], clock=RealClock(time.monotonic))
    assert f"digitruck[{extra}]" in check.error
