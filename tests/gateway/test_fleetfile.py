"""The fleet file: the example fleet, and every way in which a file does not hold."""

from pathlib import Path

import pytest

from gateway.fleetfile import FLEET_BYTES_MAX, FleetFileError, FleetTruck, load_fleet

ONE = """
[[truck]]
name = "ke-arrow"
display_name = "Arrow"
place = "Nairobi"
country_code = "KE"
country = "Kenya"
latitude_deg = -1.29
longitude_deg = 36.82
workstations = 21
"""


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_text(ONE)
    return path


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(FleetFileError) as caught:
        load_fleet(path)
    assert caught.value.source == str(path)
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value.reason


def test_example_fleet_is_the_programmes_eleven_trucks() -> None:
    fleet = load_fleet()
    assert [(truck.name, truck.country_code) for truck in fleet] == [
        ("tz-arrow", "TZ"),
        ("za-deloitte", "ZA"),
        ("cd-kinshasa", "CD"),
        ("za-united-petfoods", "ZA"),
        ("ke-arrow", "KE"),
        ("ke-huawei", "KE"),
        ("zm-patel", "ZM"),
        ("fr-wetechcare", "FR"),
        ("et-huawei", "ET"),
        ("ug-huawei", "UG"),
        ("sn-huawei", "SN"),
    ]
    assert {truck.workstations for truck in fleet} == {21}
    assert [truck.name for truck in fleet if truck.touring] == ["ke-arrow"]


def test_names_of_the_example_fleet_carry_their_country() -> None:
    for truck in load_fleet():
        assert truck.name.split("-")[0] == truck.country_code.lower()


def test_file_of_ones_own_is_read_in_its_order(fleet_file: Path) -> None:
    fleet_file.write_text(
        ONE + ONE.replace("ke-arrow", "ke-aardvark").replace("workstations", "touring = true\nworkstations")
    )
    fleet = load_fleet(fleet_file)
    assert [(truck.name, truck.touring) for truck in fleet] == [("ke-arrow", False), ("ke-aardvark", True)]
    assert fleet[0] == FleetTruck(
        name="ke-arrow",
        display_name="Arrow",
        place="Nairobi",
        country_code="KE",
        country="Kenya",
        latitude_deg=-1.29,
        longitude_deg=36.82,
        workstations=21,
    )


def test_whole_degrees_may_be_written_without_a_point(fleet_file: Path) -> None:
    fleet_file.write_text(ONE.replace("36.82", "37"))
    assert load_fleet(fleet_file)[0].longitude_deg == 37.0


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("workstations = 21", "workstations = '21'", "$.truck[0].workstations"),
        ("workstations = 21", "workstations = -1", "$.truck[0].workstations"),
        ("workstations = 21", "workstations = 21\nwheels = 6", "`wheels` - at `$.truck[0]`"),
        ("workstations = 21", "", "`workstations` - at `$.truck[0]`"),
        ("[[truck]]", "colour = 'red'\n[[truck]]", "`colour`"),
        ('"ke-arrow"', '"KE Arrow"', "$.truck[0].name"),
        ('"ke-arrow"', '"../ke-arrow"', "$.truck[0].name"),
        ('"ke-arrow"', '"ke-arrow\\n"', "$.truck[0].name"),
        ('"KE"', '"Kenya"', "$.truck[0].country_code"),
        ("-1.29", "-91.0", "$.truck[0].latitude_deg"),
        ("36.82", "nan", "$.truck[0].longitude_deg"),
        ("36.82", "181", "$.truck[0].longitude_deg"),
        ('"Nairobi"', '""', "$.truck[0].place"),
        ('"Nairobi"', f'"{"n" * 257}"', "$.truck[0].place"),
    ],
)
def test_refusal_names_the_key(fleet_file: Path, old: str, new: str, key: str) -> None:
    assert old in ONE
    assert key in refusal(fleet_file, ONE.replace(old, new))


def test_truck_named_twice_is_refused_with_both_places(fleet_file: Path) -> None:
    reason = refusal(fleet_file, ONE + ONE.replace("ke-arrow", "other") + ONE)
    assert "`ke-arrow`" in reason
    assert "$.truck[0]" in reason
    assert "$.truck[2]" in reason


def test_empty_fleet_is_refused(fleet_file: Path) -> None:
    assert "truck" in refusal(fleet_file, "")
    assert "$.truck" in refusal(fleet_file, "truck = []")


def test_what_is_not_toml_is_refused(fleet_file: Path) -> None:
    assert refusal(fleet_file, "[[truck]\n")
    assert refusal(fleet_file, "x = " + "[" * 5_000)
    fleet_file.write_bytes(b"\xff\xfe")
    with pytest.raises(FleetFileError):
        load_fleet(fleet_file)


def test_file_that_is_far_too_large_is_not_parsed(fleet_file: Path) -> None:
    assert "bytes" in refusal(fleet_file, ONE + "#" * FLEET_BYTES_MAX)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(FleetFileError, match="cannot be read") as caught:
            load_fleet(path)
        assert caught.value.source == str(path)
