"""Makes an update, or takes it, in a process of its own, whose time and peak memory are then known.

    python -m tests.bench.content_work encode OLD NEW FOLDER
    python -m tests.bench.content_work decode OLD FOLDER

The folder takes the pack, the signed manifests and their delta; decoding has those and the old files, nothing else, and
writes no file: each is hashed as it comes out, as the installer does.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

_YEAR_S = 365 * 86_400
_ISSUED_S = 1_800_000_000


def encode(old: Path, new: Path, folder: Path) -> dict[str, int]:
    """Make the update; return its sizes in bytes."""
    from gateway.packing import encode as packed
    from gateway.packing import pack_manifest, plan_update
    from gateway.publishing import make_manifest, scan
    from protocol.cose import SigningKey
    from protocol.documents import sign_document

    key = SigningKey(bytes(32))
    signed, places = [], {}
    for number, each in enumerate((old, new)):
        source = scan(each)
        places |= {file.digest: file.file for file in source.files}
        manifest = make_manifest(
            source,
            name="bench",
            label=str(number),
            version=number + 1,
            issued_s=_ISSUED_S,
            expires_s=_ISSUED_S + _YEAR_S,
        )
        signed.append(sign_document(manifest, [key]))
        (folder / f"manifest-{number}").write_bytes(signed[number])
    update = plan_update(signed[1], signed[:1])
    with (folder / "pack").open("wb") as pack:
        wanted = [(file, places[file.digest]) for file in update.wanted]
        for chunk in packed(wanted, [places[digest] for digest in update.held]):
            pack.write(chunk)
    delta = pack_manifest(signed[1], update)
    (folder / "delta").write_bytes(delta)
    return {"pack": (folder / "pack").stat().st_size, "manifest": len(delta), "wanted": len(update.wanted)}


def decode(old: Path, folder: Path) -> dict[str, int]:
    """Take the update; return how many files came out right."""
    from protocol.documents import Manifest, parse_document
    from protocol.pack.decoder import decode_files, list_held
    from protocol.pack.manifests import decode_delta
    from store.heldviews import HeldViews

    before, _ = parse_document((folder / "manifest-0").read_bytes(), Manifest)
    places = {file.digest: old / file.path for file in before.files}
    held = list_held([before.files])
    expected = decode_delta((folder / "delta").read_bytes(), before.files, held)
    made: dict[str, bytes] = {}
    wanted = expected.from_pack()
    with (folder / "pack").open("rb") as pack, HeldViews([(digest, places[digest]) for digest in held]) as views:
        for file, pieces in decode_files(pack.read, wanted, views) if wanted else ():
            hashed = hashlib.sha256()
            for piece in pieces:
                hashed.update(piece)
            made[file.path] = hashed.digest()
    right = expected.complete(made) == (folder / "manifest-1").read_bytes()
    return {"files": len(made), "right": int(right)}


def main() -> int:
    """Do one of the two and print what it took as JSON."""
    what, *folders = sys.argv[1:]
    began = time.monotonic()
    found = encode(*map(Path, folders)) if what == "encode" else decode(*map(Path, folders))
    # Not getrusage: its peak begins with that of the process that started this one.
    (peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(json.dumps(found | {"seconds": time.monotonic() - began, "peak_mib": int(peak.split()[1]) / 1024}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
