"""`digitruck token`: who may sign in, and what for. A revoked token is refused from the next request on."""

from __future__ import annotations

import click
import msgspec

from gateway.apicalls import ITEMS_MAX, decode, path_part
from gateway.cli.output import confirm, examples, instant, json_option, note, print_json, print_table, say
from gateway.cli.session import gateway
from gateway.cli.times import duration


class Token(msgspec.Struct, frozen=True):
    """A token without its text."""

    name: str
    role: str
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None


class TokenPage(msgspec.Struct, frozen=True):
    """A page of tokens."""

    items: list[Token]
    next: str | None


class MadeToken(msgspec.Struct, frozen=True):
    """A new token; its text is shown this once."""

    name: str
    role: str
    token: str
    expires_ms: int | None


@click.group(
    epilog=examples(
        "digitruck token new juma --role operator --expires-in 30d",
        "digitruck token list",
        "digitruck token revoke juma",
    )
)
def token() -> None:
    """Access tokens of people and programs (needs the role admin)."""


@token.command(
    "new", epilog=examples("digitruck token new juma --role operator", "digitruck token new scraper --role viewer")
)
@click.argument("name")
@click.option(
    "--role", type=click.Choice(["viewer", "operator", "publisher", "admin"]), required=True, help="What it may do."
)
@click.option("--expires-in", type=duration, help="How long it holds; until it is revoked when left out.")
@json_option
def token_new(name: str, role: str, expires_in: int | None, as_json: bool) -> None:
    """Make a token for NAME; it is printed once and kept nowhere."""
    wanted: dict[str, str | int] = {"name": name, "role": role}
    if expires_in is not None:
        wanted["expires_in_s"] = expires_in
    body = msgspec.json.encode(wanted)
    with gateway() as client:
        answer = client.run(client.client.call("POST", "/v1/tokens", body=body, content_type="application/json"))
    made = decode(answer, MadeToken)
    if as_json:
        print_json(made)
        return
    say(made.token)
    note(f"Give it to {name}, who runs: digitruck login URL")


@token.command("list", epilog=examples("digitruck token list", "digitruck token list --json"))
@json_option
def token_list(as_json: bool) -> None:
    """List the tokens that were ever given out."""
    with gateway() as client:
        found: list[Token] = client.run(client.client.list_all("/v1/tokens", TokenPage, {}, ITEMS_MAX))
    if as_json:
        print_json(found)
        return
    print_table(
        ["name", "role", "made", "expires", "revoked"],
        [
            (each.name, each.role, instant(each.created_ms), instant(each.expires_ms), instant(each.revoked_ms))
            for each in found
        ],
        empty="no tokens",
    )


@token.command("revoke", epilog=examples("digitruck token revoke juma", "digitruck token revoke juma --yes"))
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask (for scripts).")
@json_option
def token_revoke(name: str, yes: bool, as_json: bool) -> None:
    """Revoke the token called NAME: the next request that brings it is refused."""
    confirm(f"Revoke the token of {name}?", yes=yes)
    with gateway() as client:
        revoked = decode(client.run(client.client.call("DELETE", f"/v1/tokens/{path_part(name)}")), Token)
    if as_json:
        print_json(revoked)
        return
    say(f"{revoked.name} is revoked since {instant(revoked.revoked_ms)}")
