"""`digitruck bundle diff`: what an update from one folder to another costs over a link, proved by doing it.

The pack is made, then decoded with nothing but the old folder, and every file and the signed manifest are compared.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from gateway.cli.output import CommandError, examples, json_option, note, print_fields, print_json, size
from gateway.publishing import Source, make_manifest, scan
from protocol import cose
from protocol.documents import ManifestFile, sign_document
from protocol.errors import PeerError

_YEAR_S = 365 * 86_400
_ISSUED_S = 1_800_000_000


class DiffReport(msgspec.Struct, frozen=True):
    """What goes over the link (bytes), how many files the new folder has, and whether decoding gave exactly them."""

    pack_bytes: int
    manifest_bytes: int
    files: int
    round_trip: bool


@click.command(
    "diff",
    epilog=examples(
        "digitruck bundle diff ./maths-2026.10 ./maths-2026.11", "digitruck bundle diff ./none ./maths --json"
    ),
)
@click.argument("old", metavar="OLD", type=click.Path(path_type=Path))
@click.argument("new", metavar="NEW", type=click.Path(path_type=Path))
@json_option
def diff_command(old: Path, new: Path, as_json: bool) -> None:
    """Say how many bytes an update takes that leads from folder OLD to folder NEW.

    OLD may be empty: that is a first install. The update is decoded again and compared before it is reported.
    """
    report = measure(_held(old), scan(new), note_progress=not as_json)
    if as_json:
        print_json(report)
    else:
        print_fields(
            [
                ("pack", size(report.pack_bytes)),
                ("manifest", size(report.manifest_bytes)),
                ("files", report.files),
                ("round trip", "verified" if report.round_trip else "FAILED"),
            ]
        )
    if not report.round_trip:
        raise CommandError("the pack does not decode to the new folder: this is a fault of this software, report it")


def measure(old: Source | None, new: Source, *, note_progress: bool = False) -> DiffReport:
    """Make the update from one folder to another, decode it again, and return what it weighs."""
    # Packs are the work of numpy and codecs that no other command needs: they are loaded when they are used.
    from gateway.packing import encode, pack_manifest, plan_update

    key = cose.SigningKey(bytes(32))
    before = None if old is None else _signed(old, 1, key)
    after = _signed(new, 2, key)
    update = plan_update(after, [] if before is None else [before])
    places = {each.digest: each.file for each in (*(old.files if old else ()), *new.files)}

    def progress(done: int, total: int) -> None:
        if note_progress:
            note(f"packed {size(done)} of {size(total)}")

    with tempfile.TemporaryFile() as pack:
        for chunk in encode(
            [(file, places[file.digest]) for file in update.wanted],
            [places[digest] for digest in update.held],
            progress=progress,
        ):
            pack.write(chunk)
        pack_bytes = pack.tell() if update.wanted else 0
        delta = pack_manifest(after, update)
        pack.seek(0)
        held = [(digest, places[digest]) for digest in update.held]
        right = _decodes(pack if update.wanted else io.BytesIO(), delta, update.old, held, after)
    return DiffReport(pack_bytes, len(delta), len(new.files), right)


def _decodes(
    pack: object, delta: bytes, old: Sequence[ManifestFile], held: Sequence[tuple[bytes, Path]], signed: bytes
) -> bool:
    from protocol.pack.decoder import decode_files
    from protocol.pack.manifests import decode_delta
    from store.heldviews import HeldViews

    try:
        expected = decode_delta(delta, old, [digest for digest, _ in held])
        made: dict[str, bytes] = {}
        wanted = expected.from_pack()
        if wanted:
            with HeldViews(held) as views:
                for file, pieces in decode_files(pack.read, wanted, views):  # type: ignore[attr-defined]
                    hashed = hashlib.sha256()
                    for piece in pieces:
                        hashed.update(piece)
                    made[file.path] = hashed.digest()
        # The signed bytes hold the digest of every file: if they come out right, all of the files did.
        return expected.complete(made) == signed
    except PeerError as error:
        note(str(error))
        return False


def _signed(source: Source, version: int, key: cose.SigningKey) -> bytes:
    manifest = make_manifest(
        source, name="diff", label=str(version), version=version, issued_s=_ISSUED_S, expires_s=_ISSUED_S + _YEAR_S
    )
    return sign_document(manifest, [key])


def _held(folder: Path) -> Source | None:
    if not folder.is_dir():
        raise CommandError(f"{folder} is not a folder: name the folder whose files trucks hold, or an empty one")
    return None if not any(folder.iterdir()) else scan(folder)
