"""`digitruck console`: a link that opens the web console, signed in, once."""

from __future__ import annotations

import click

from gateway.cli.output import examples, instant, json_option, note, print_json, say
from gateway.cli.session import gateway


@click.command(epilog=examples("digitruck console", "digitruck console | xargs xdg-open", "digitruck console --json"))
@json_option
def console(as_json: bool) -> None:
    """Print a link that signs a browser in to the web console, with your role. It works once, for ten minutes."""
    with gateway() as client:
        made = client.sign_in_link()
        address = f"{client.client.url}{made.path}"
    if as_json:
        print_json({"address": address, "expires_ms": made.expires_ms})
        return
    say(address)
    note(f"Holds until {instant(made.expires_ms)}, once. Who opens it is you.")
