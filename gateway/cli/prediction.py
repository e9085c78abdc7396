"""What a push would cost trucks, before anything is signed or sent: the pack is made here, from what they hold.

Trucks of the same history take the same pack, so that a whole fleet is a few packs. What they hold and this folder has
not is brought from the gateway for it, up to a limit; beyond that the packed size of the new contents is the bound.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.cli.belief import read_believed
from gateway.cli.output import note, print_table, size
from gateway.client import ApiError, SyncClient
from gateway.publishing import Source
from protocol.cose import SigningKey
from protocol.documents import Manifest, ManifestFile, sign_document
from protocol.numbers import HELD_MANIFESTS_MAX, PIECE_BYTES

_BROUGHT_BYTES_MAX = 256 << 20
# IPv6, UDP, CoAP and OSCORE around a piece, and its share of a request.
_OVERHEAD_BYTES = 100


@dataclass(frozen=True, slots=True)
class Prediction:
    """Trucks that hold the same, and what the update takes for each of them: `exact`, or at most that."""

    trucks: tuple[str, ...]
    holds: str
    files: int
    pack_bytes: int
    manifest_bytes: int
    wire_bytes: int
    exact: bool


def predict(
    client: SyncClient, source: Source, manifest: Manifest, *, progress: Callable[[int, int], None]
) -> list[Prediction]:
    """Return what an edition takes, by what trucks hold; those that hold none of the bundle come last, as one."""
    from gateway.packing import encode, pack_manifest, plan_update

    signed = sign_document(manifest, [SigningKey(bytes(32))])
    own = {each.digest: each.file for each in source.files}
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for held, trucks in _histories(client, manifest.name).items():
            before = [(digest, client.document(digest)) for digest in held]
            labels = [read_believed(each, Manifest, digest) for digest, each in before]
            update = plan_update(signed, [each for _, each in before])
            places = dict(own)
            wanted = {file.digest: file.size for each in labels for file in each.files if file.size}
            exact = _bring(client, wanted, places, Path(scratch))
            bases = [places.get(digest, Path(scratch, "none")) for digest in update.held] if exact else []
            chunks = encode([(file, own[file.digest]) for file in update.wanted], bases, progress=progress)
            pack = sum(map(len, chunks)) if update.wanted else 0
            named = [f"{each.name} {each.label}" for each in labels]
            found.append(_prediction(trucks, named, update.wanted, pack, len(pack_manifest(signed, update)), exact))
    return found


def show(predictions: Sequence[Prediction]) -> None:
    """Print predictions as a table."""
    print_table(
        ["trucks", "hold", "new contents", "pack", "manifest", "on the link", ""],
        [
            (
                ", ".join(each.trucks[:4]) + (f" and {len(each.trucks) - 4} more" if len(each.trucks) > 4 else ""),
                each.holds,
                each.files,
                size(each.pack_bytes),
                size(each.manifest_bytes),
                size(each.wire_bytes),
                "" if each.exact else "at most",
            )
            for each in predictions
        ],
        empty="no trucks yet",
    )
    note("Bytes on the link are without losses.")


def _prediction(
    trucks: Sequence[str], named: Sequence[str], wanted: Sequence[ManifestFile], pack: int, manifest: int, exact: bool
) -> Prediction:
    carried = pack + manifest
    return Prediction(
        trucks=tuple(trucks) or ("(a first install)",),
        holds=", ".join(named) or "nothing of it",
        files=len(wanted),
        pack_bytes=pack,
        manifest_bytes=manifest,
        wire_bytes=carried + -(-carried // PIECE_BYTES) * _OVERHEAD_BYTES,
        exact=exact,
    )


def _histories(client: SyncClient, bundle: str) -> dict[tuple[str, ...], list[str]]:
    """Return the trucks that hold an edition of a bundle by the manifests that they hold, that bundle's first."""
    found: dict[tuple[str, ...], list[str]] = {}
    for truck in client.trucks():
        if truck.revoked_ms is not None:
            continue
        applied = [
            each
            for each in client.truck(truck.truck).holdings
            if each.document == "manifest" and each.outcome == "applied" and each.name
        ]
        if any(each.name == bundle for each in applied):
            applied.sort(key=lambda each: (each.name != bundle, each.name))
            found.setdefault(tuple(each.digest for each in applied[:HELD_MANIFESTS_MAX]), []).append(truck.truck)
    return found | {(): []}


def _bring(client: SyncClient, wanted: dict[bytes, int], places: dict[bytes, Path], scratch: Path) -> bool:
    """Bring contents that are not here to `scratch`; False, and nothing brought, where they are too many."""
    missing = {digest: bytes_ for digest, bytes_ in wanted.items() if digest not in places}
    if sum(missing.values()) > _BROUGHT_BYTES_MAX:
        return False
    for digest in missing:
        place = scratch / digest.hex()
        if not place.exists():
            try:
                with place.open("wb") as file:
                    for piece in client.blob(digest.hex()):
                        file.write(piece)
            except ApiError as error:
                if error.status != 404:
                    raise
                place.unlink()
                continue  # the gateway could not stand on it either
        places[digest] = place
    return True
