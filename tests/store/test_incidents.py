"""Incidents: what must be told upstream, once, and does not pile up."""

from store import incidents


def test_incidents_are_told_oldest_first_and_once(database) -> None:
    start = len(incidents.unreported(database))
    for number in range(3):
        incidents.record(database, "test.thing", {"number": number, "text": "x", "flag": True}, number)
    found = incidents.unreported(database)[start:]
    assert [dict(each.values) for each in found] == [{"number": n, "text": "x", "flag": True} for n in range(3)]
    incidents.mark_reported(database, [each.id for each in found[:2]])
    assert [each.values["number"] for each in incidents.unreported(database)[start:]] == [2]


def test_reported_incidents_do_not_pile_up(database) -> None:
    with database.atomic():
        for number in range(1_100):
            incidents.record(database, "test.thing", {"number": number}, 0)
        incidents.mark_reported(database, [each.id for each in incidents.unreported(database, 2_000)])
    incidents.record(database, "test.thing", {"number": 0}, 0)
    assert database.value("SELECT count(*) FROM incidents") <= incidents.INCIDENTS_KEPT + 1
