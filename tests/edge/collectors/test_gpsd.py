"""Against Debian's gpsd, fed by its gpsfake with what a receiver says; and positions that lie."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import msgspec
import pytest

from edge.collectors.gpsd import Fix, GpsdCollector, GpsdSettings, distance_m, hold, read_fix
from tests.edge.collectors.peers import Peer, failure, free_port, liar, listens, program, sample, watched

ALL = ("lat", "lon", "altitude", "speed", "fix", "satellites")


def collector(port: int, **values: object) -> GpsdCollector:
    return GpsdCollector(GpsdSettings(kind="gpsd", name="gps", port=port, **values))


def sentence(body: str) -> str:
    return f"${body}*{reduce(lambda left, right: left ^ right, body.encode()):02X}\r\n"


def recording() -> str:
    """Return two minutes of a parked receiver near Nairobi that wanders by some metres, as NMEA 0183."""
    lines = []
    for second in range(120):
        clock = f"12{second // 60:02}{second % 60:02}.00"
        minutes = f"17.{2000 + 3 * (second % 5):04}"
        lines.append(sentence(f"GPRMC,{clock},A,01{minutes},S,03649.5000,E,000.3,090.0,231126,,,A"))
        lines.append(sentence(f"GPGGA,{clock},01{minutes},S,03649.5000,E,1,08,1.1,1661.0,M,-15.0,M,,"))
    return "".join(lines)


@pytest.fixture
def gpsd(tmp_path: Path) -> Iterator[Peer]:
    """A gpsd with a receiver that goes round its recording; its port is the second word after -P."""
    program("gpsd", "gpsd")
    log = tmp_path / "parked.nmea"
    log.write_text(recording())
    port = free_port()
    command = [program("gpsfake", "gpsd-clients"), "-q", "-c", "0.01", "-P", str(port), log]
    peer = Peer(command, tmp_path)
    try:
        yield peer.start(listens(port))
    finally:
        peer.stop()


def port_of(peer: Peer) -> int:
    return int(peer.command[peer.command.index("-P") + 1])


async def test_a_parked_truck_is_where_it_is_and_stays_there(gpsd: Peer, monkeypatch):
    source = collector(port_of(gpsd), channels=ALL, period_s=0.05)
    async with watched(source, monkeypatch) as watch:
        await watch.until(lambda: watch.rows[-1:] != [] and watch.rows[-1][4] == 3 and watch.rows[-1][0] is not None)
        settled = len(watch.rows) - 1
        await watch.more(20)
    places = {row[:4] for row in watch.rows[settled:] if row[0] is not None}
    assert len(places) == 1
    ((lat, lon, altitude, speed),) = places
    assert (lat, lon, speed) == (-12867, 368250, 0)
    assert altitude in (1661, 1646)  # above the sea or the ellipsoid, by the version of gpsd


def tpv(**values: object) -> bytes:
    return msgspec.json.encode({"class": "TPV", "mode": 3, **values}) + b"\n"


@pytest.mark.usefixtures("eager")
async def test_a_fix_that_is_lost_or_cannot_be_is_missing():
    for report, fix in (
        (tpv(mode=1, lat=-1.3, lon=36.8), "1"),
        (tpv(lat=0.0, lon=0.0), "3"),
        (tpv(lat=91, lon=36.8), "3"),
        (tpv(lat="north", lon=None), "3"),
        (b'{"class":"TPV","mode":3,"lat":1e400,"lon":36.8}\n' + tpv(), "3"),
    ):
        async with liar(report, hold=True) as port:
            assert await sample(collector(port, channels=("fix", "lat", "lon"))) == {
                "gps.fix": fix,
                "gps.lat": "",
                "gps.lon": "",
            }


@pytest.mark.usefixtures("eager")
async def test_one_receiver_of_several_is_listened_to():
    reports = tpv(device="/dev/ttyUSB1", lat=1, lon=2) + tpv(device="/dev/ttyUSB0", lat=-1.3, lon=36.8, speed=20)
    async with liar(reports + tpv(device="/dev/ttyUSB1", lat=1, lon=2), hold=True) as port:
        source = collector(port, receiver="/dev/ttyUSB0", channels=("lat", "lon", "speed"))
        assert await sample(source) == {"gps.lat": "-1.3", "gps.lon": "36.8", "gps.speed": "72"}


@pytest.mark.usefixtures("eager")
async def test_satellites_are_counted_in_either_form():
    older = b'{"class":"SKY","satellites":[{"used":true},{"used":false},{"used":true},7]}\n'
    for report, used in ((b'{"class":"SKY","uSat":9,"satellites":[]}\n', "9"), (older, "2")):
        async with liar(report, hold=True) as port:
            assert await sample(collector(port, channels=("satellites",))) == {"gps.satellites": used}


async def test_what_is_no_gpsd_says_so():
    async with liar(b"SSH-2.0-OpenSSH_9.2\r\n" * 50) as port:
        assert await failure(collector(port)) == "what answers is not gpsd"
    assert "is gpsd running" in await failure(collector(free_port()))


def test_a_fix_is_held_until_the_truck_has_moved():
    here = Fix(-1.2867, 36.825, 1661.0)
    near, far = Fix(-1.2868, 36.8252, 1700.0), Fix(-1.2873, 36.825, 1661.0)
    assert hold(None, here, 50) == here
    assert hold(here, near, 50) == here
    assert hold(here, far, 50) == far
    assert hold(Fix(-1.2867, 36.825), near, 50) == near  # the first with a height


def test_distances_are_right_near_the_date_line_and_the_poles():
    assert distance_m(Fix(0, 179.9999), Fix(0, -179.9999)) == pytest.approx(22.3, abs=0.2)
    assert distance_m(Fix(-1.2867, 36.825), Fix(-1.2867, 36.826)) == pytest.approx(111.3, abs=0.2)
    assert distance_m(Fix(90, 0), Fix(90, 180)) == pytest.approx(0, abs=0.01)


def test_an_old_name_of_the_height_is_read():
    assert read_fix({"lat": 1, "lon": 2, "alt": 3}) == Fix(1.0, 2.0, 3.0)
    assert read_fix({"lat": 1, "lon": 2, "altMSL": 4, "alt": 3}) == Fix(1.0, 2.0, 4.0)
    assert read_fix({"lat": 1, "lon": True, "altMSL": float("nan")}) == Fix(1.0, 1.0)
