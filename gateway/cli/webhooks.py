"""`digitruck webhook`: changes of the fleet posted to other programs."""

from __future__ import annotations

import click
import msgspec

from gateway.apicalls import decode
from gateway.cli.output import confirm, examples, instant, json_option, note, print_json, print_table, say
from gateway.cli.session import gateway


class Webhook(msgspec.Struct, frozen=True):
    """A webhook without its secret."""

    id: int
    url: str
    kinds: list[str]
    created_ms: int
    created_by: str


class WebhookPage(msgspec.Struct, frozen=True):
    """All webhooks."""

    items: list[Webhook]
    next: str | None


class NewWebhook(Webhook, frozen=True):
    """A new webhook with its secret, shown this once."""

    secret: str


class Delivery(msgspec.Struct, frozen=True):
    """What became of one message."""

    id: int
    kind: str
    created_ms: int
    attempts: int
    due_ms: int | None
    delivered_ms: int | None
    error: str


class DeliveryPage(msgspec.Struct, frozen=True):
    """A page of messages."""

    items: list[Delivery]
    next: str | None


@click.group(
    epilog=examples(
        "digitruck webhook new https://ops.example.org/hook --kind alarm --kind rollout",
        "digitruck webhook list",
        "digitruck webhook show 3",
    )
)
def webhook() -> None:
    """Changes posted to other programs, signed (needs the role admin)."""


@webhook.command(
    "new",
    epilog=examples(
        "digitruck webhook new https://ops.example.org/hook --kind alarm",
        "digitruck webhook new https://x.example.org/all",
    ),
)
@click.argument("url")
@click.option(
    "--kind", "kinds", multiple=True, metavar="KIND", help="A kind of change, as `watch` names it; repeatable."
)
@json_option
def webhook_new(url: str, kinds: tuple[str, ...], as_json: bool) -> None:
    """Post changes to URL from now on. The secret that signs them is printed once.

    Messages and signatures are those of Standard Webhooks 1.0; what is not answered 2xx comes again for two days.
    """
    body = msgspec.json.encode({"url": url, "kinds": list(kinds)})
    with gateway() as client:
        answer = client.run(client.client.call("POST", "/v1/webhooks", body=body, content_type="application/json"))
    made = decode(answer, NewWebhook)
    if as_json:
        print_json(made)
        return
    say(made.secret)
    note(
        f"Webhook {made.id}. Give the secret to the receiver; what became of messages: digitruck webhook show {made.id}"
    )


@webhook.command("list", epilog=examples("digitruck webhook list", "digitruck webhook list --json"))
@json_option
def webhook_list(as_json: bool) -> None:
    """List the webhooks."""
    with gateway() as client:
        found = client.run(client.client.get("/v1/webhooks", WebhookPage)).items
    if as_json:
        print_json(found)
        return
    print_table(
        ["id", "url", "kinds", "since", "by"],
        [(each.id, each.url, each.kinds or "all", instant(each.created_ms), each.created_by) for each in found],
        empty="no webhooks: digitruck webhook new URL",
    )


@webhook.command("show", epilog=examples("digitruck webhook show 3", "digitruck webhook show 3 --json"))
@click.argument("identity", metavar="ID", type=click.IntRange(min=1))
@json_option
def webhook_show(identity: int, as_json: bool) -> None:
    """Show what became of a webhook's newest messages."""
    with gateway() as client:
        found = client.run(client.client.get(f"/v1/webhooks/{identity}/deliveries", DeliveryPage)).items
    if as_json:
        print_json(found)
        return
    print_table(
        ["message", "kind", "made", "tries", "state", "error"],
        [(each.id, each.kind, instant(each.created_ms), each.attempts, _state(each), each.error) for each in found],
        empty="nothing was sent there yet",
    )


@webhook.command("delete", epilog=examples("digitruck webhook delete 3", "digitruck webhook delete 3 --yes"))
@click.argument("identity", metavar="ID", type=click.IntRange(min=1))
@click.option("--yes", is_flag=True, help="Do not ask (for scripts).")
def webhook_delete(identity: int, yes: bool) -> None:
    """Delete a webhook, and what waits for it."""
    confirm(f"Delete webhook {identity} and what waits for it?", yes=yes)
    with gateway() as client:
        client.run(client.client.call("DELETE", f"/v1/webhooks/{identity}"))
    say(f"Webhook {identity} is deleted.")


def _state(each: Delivery) -> str:
    if each.delivered_ms is not None:
        return f"taken {instant(each.delivered_ms)}"
    return "given up" if each.due_ms is None else f"again {instant(each.due_ms)}"
