"""`digitruck bundle make` and `sign`: a manifest made on one machine, signed on another, pushed by a third.

What is made is the manifest's own bytes, the same on every machine for the same folder, words and SOURCE_DATE_EPOCH.
The machine that signs needs neither the folder nor a network.
"""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.explain import explain
from gateway.cli.files import write_private
from gateway.cli.output import CommandError, confirm, examples, note, say
from gateway.cli.session import load_key
from gateway.cli.trustfiles import read_signed
from gateway.keystore import KeyRole
from gateway.publishing import Source
from protocol import cose
from protocol.documents import Manifest, document_aad, read_document
from protocol.errors import MalformedError
from protocol.numbers import DOCUMENT_BYTES_MAX


@click.command(
    "sign",
    epilog=examples(
        "digitruck bundle sign maths-2026.11.manifest --key library",
        "digitruck bundle sign maths-2026.11.manifest --key library --output /media/stick/maths.cose --yes",
    ),
)
@click.argument("file", metavar="MANIFEST", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--key", "keys", multiple=True, required=True, metavar="NAME", help="Your publisher's key; repeatable.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="MANIFEST with .cose if left out.")
@click.option("--yes", is_flag=True, help="Do not ask before signing (for scripts).")
def sign_command(file: Path, keys: tuple[str, ...], output: Path | None, yes: bool) -> None:
    """Sign a MANIFEST that `bundle make` wrote, on a machine that need not be online."""
    signing = [load_key(name, KeyRole.PUBLISHER) for name in keys]
    payload = _payload(file)
    manifest = _manifest(payload, file)
    for line in explain(manifest, None, lambda key: key.hex()[:8]):
        note(line)
    note(f"SHA-256 of what is signed: {cose.digest(payload).hex()}")
    confirm(f"Sign this as {', '.join(keys)}?", yes=yes)
    place = output or file.with_name(f"{file.name.removesuffix('.manifest')}.cose")
    write_private(place, cose.sign(signing, payload, document_aad(manifest.document)))
    say(f"{place}: more signatures by digitruck trust sign {place.name} --key THEIRS")
    say(f"Next, where the folder and the network are: digitruck bundle push DIR --signed {place.name}")


def write_manifest(manifest: Manifest, place: Path) -> None:
    """Write the bytes that are to be signed, and say what comes next."""
    payload = manifest.encode()
    write_private(place, payload)
    say(f"{place}, SHA-256 {cose.digest(payload).hex()}")
    say(f"Next, on the machine with the key: digitruck bundle sign {place.name} --key NAME")


def read_signed_manifest(place: Path, source: Source) -> tuple[Manifest, bytes]:
    """Return a signed manifest and its bytes; raise `CommandError` where the folder is not what was signed."""
    file = read_signed(place)
    if not isinstance(file.document, Manifest):
        raise CommandError(f"{place} is a {type(file.document).__name__.lower()}, not a signed manifest")
    signed = {each.path: each.digest for each in file.document.files}
    found = {each.path: each.digest for each in source.files}
    for path in sorted(signed.keys() | found.keys()):
        if signed.get(path) != found.get(path):
            fault = (
                "is not in the folder" if path not in found else "was not signed" if path not in signed else "differs"
            )
            raise CommandError(f"{source.folder} is not what was signed: {path} {fault}; make and sign it anew")
    return file.document, file.signed


def _payload(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            payload = opened.read(DOCUMENT_BYTES_MAX + 1)
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from error
    return payload


def _manifest(payload: bytes, file: Path) -> Manifest:
    try:
        document = read_document(payload)
    except MalformedError as error:
        raise CommandError(f"{file} is no manifest ({error}): digitruck bundle make writes one") from error
    if not isinstance(document, Manifest) or document.encode() != payload:
        raise CommandError(f"{file} is no manifest: digitruck bundle make writes one")
    return document
