"""Where a person is signed in: the gateway's address and a token, in a 0600 file; and how commands reach it.

`DIGITRUCK_URL` and `DIGITRUCK_TOKEN` stand in for the file in scripts. Signing keys are not here: see
`gateway.keystore`. A token over plain HTTP can be read on the way, so anything but loopback must be HTTPS.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click
import msgspec

from gateway.cli.files import write_private
from gateway.cli.output import CommandError, examples, note, say
from gateway.client import ApiError, SyncClient
from gateway.keystore import KeyRole, Keystore
from protocol.cose import SigningKey

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class _SessionFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str
    token: str


@dataclass(frozen=True, slots=True)
class Session:
    """The gateway that a person is signed in to."""

    url: str
    token: str


def config_folder() -> Path:
    """Return the folder of the session file (XDG base directories)."""
    return _xdg("XDG_CONFIG_HOME", ".config") / "digitruck"


def data_folder() -> Path:
    """Return the folder of keys and trust documents (XDG base directories)."""
    return _xdg("XDG_DATA_HOME", ".local/share") / "digitruck"


def keystore() -> Keystore:
    """Return this person's keys."""
    return Keystore(data_folder() / "keys")


def load_key(name: str, role: KeyRole) -> SigningKey:
    """Return a person's private key for one role; raise `CommandError` for a key that was made for another."""
    key = keystore().load(name)
    if key.role is not role:
        raise CommandError(f"{name} is a {key.role} key; this is signed by a {role}: see digitruck key show")
    return key.signing


def load_session() -> Session:
    """Return who is signed in where; raise `CommandError` when nobody is."""
    url, token = os.environ.get("DIGITRUCK_URL"), os.environ.get("DIGITRUCK_TOKEN")
    if url and token:
        return Session(_checked(url, plain_http=False), token)
    path = config_folder() / "session.toml"
    try:
        file = msgspec.toml.decode(path.read_bytes(), type=_SessionFile)
    except FileNotFoundError:
        raise CommandError("not signed in yet: digitruck login URL") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read ({error}): sign in again with digitruck login URL") from error
    return Session(url or file.url, token or file.token)


def save_session(session: Session) -> Path:
    """Keep a session (0600), replacing the one before; return the file."""
    path = config_folder() / "session.toml"
    # Both are plain ASCII (checked when they came in), where JSON's quoting is TOML's.
    text = f"url = {json.dumps(session.url)}\ntoken = {json.dumps(session.token)}\n"
    write_private(path, text.encode())
    return path


@contextlib.contextmanager
def gateway() -> Iterator[SyncClient]:
    """Open the signed-in gateway's API for one command."""
    session = load_session()
    with SyncClient(session.url, session.token) as client:
        yield client


@click.command(
    epilog=examples(
        "digitruck login https://fleet.example.org",
        "digitruck login http://127.0.0.1:8080 --token dt_...",
        "digitruck login https://fleet.example.org --web",
    )
)
@click.argument("url")
@click.option("--token", help="The access token; asked for (and not shown) when left out.")
@click.option("--plain-http", is_flag=True, help="Allow http:// to another machine: the token can be read on the way.")
@click.option("--web", is_flag=True, help="Sign in at the fleet's identity provider with a browser, here or elsewhere.")
def login(url: str, token: str | None, plain_http: bool, web: bool) -> None:
    """Sign in to the gateway at URL.

    The token comes from whoever runs the gateway (`digitruck-gateway init` prints the first one). It is checked, then
    kept in a file that only you can read. With --web a browser on any machine gets one that holds for some hours.
    """
    url = _checked(url, plain_http=plain_http)
    if web and token is None:
        note(f"Open this in a browser, sign in, and paste what it shows: {url}/v1/session/login?show=true")
    token = token or click.prompt("Token", hide_input=True, err=True)
    with SyncClient(url, token.strip()) as client:
        try:
            client.trucks(limit=1)
        except ApiError as error:
            if error.status == 401:
                raise CommandError("the gateway does not know this token: ask its operator for another") from error
            raise
    path = save_session(Session(url, token.strip()))
    say(f"Signed in to {url} (kept in {path}). Next: digitruck trucks")


def _checked(url: str, *, plain_http: bool) -> str:
    parts = urlsplit(url.rstrip("/"))
    if (
        not url.isascii()
        or not url.isprintable()
        or parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.query
        or parts.fragment
        or parts.username
    ):
        raise CommandError(f"{url!r} is not a gateway's address: write https://HOST or http://127.0.0.1:PORT")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not plain_http:
        raise CommandError("a token over http:// can be read on the way: use https://, or --plain-http if you must")
    return url.rstrip("/")


def _xdg(variable: str, default: str) -> Path:
    value = os.environ.get(variable, "")
    # The specification says to ignore relative paths.
    return Path(value) if value.startswith("/") else Path.home() / default
