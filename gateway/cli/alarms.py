"""`digitruck alarm`: what somebody should look at, and who has."""

from __future__ import annotations

import click

from gateway.cli.output import ago, examples, instant, json_option, print_json, print_table, say
from gateway.cli.session import gateway
from gateway.cli.times import now_ms


@click.group(epilog=examples("digitruck alarm list", "digitruck alarm list ke-arrow --all", "digitruck alarm ack 17"))
def alarm() -> None:
    """What somebody should look at: budgets that run out, bills that differ."""


@alarm.command(
    "list",
    epilog=examples("digitruck alarm list", "digitruck alarm list ke-arrow --all", "digitruck alarm list --json"),
)
@click.argument("truck", required=False)
@click.option("--all", "with_cleared", is_flag=True, help="Those that are over, too.")
@json_option
def alarm_list(truck: str | None, with_cleared: bool, as_json: bool) -> None:
    """List alarms, newest first."""
    with gateway() as client:
        found = client.alarms(truck=truck, with_cleared=with_cleared)
    if as_json:
        print_json(found)
        return
    now = now_ms()
    print_table(
        ["id", "truck", "alarm", "since", "seen by", *(["over"] if with_cleared else []), "what to do"],
        [
            (
                each.id,
                each.truck,
                each.text,
                ago(each.since_ms, now),
                each.acknowledged_by,
                *([instant(each.cleared_ms)] if with_cleared else []),
                each.next_step,
            )
            for each in found
        ],
        empty="no alarms",
    )


@alarm.command("ack", epilog=examples("digitruck alarm ack 17", "digitruck alarm ack 17 18"))
@click.argument("identities", metavar="ID...", nargs=-1, required=True, type=click.IntRange(min=1))
@json_option
def alarm_ack(identities: tuple[int, ...], as_json: bool) -> None:
    """Say that you have seen alarms. They end by themselves, when what raised them is over."""
    with gateway() as client:
        found = [client.acknowledge_alarm(each) for each in identities]
    if as_json:
        print_json(found)
        return
    for each in found:
        say(f"Alarm {each.id}, seen by {each.acknowledged_by}: {each.text}. Next: {each.next_step}")
