"""A new manifest as what changed against one that is held, without the digests that the truck works out itself.

Per file of the old manifest one byte says whether it stays, changes or goes; paths are told only of files that are
new; sizes only where they differ; and a digest is never told: a file that stays has its old one, a file that is made
from the pack is hashed as it is made. Put together again the bytes must be the signed ones, whose digest is known from
the rollout; until then nothing is believed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import cbor2

from protocol import cbor
from protocol.documents import Manifest, ManifestFile, parse_document
from protocol.errors import MalformedError
from protocol.numbers import (
    BUNDLE_BYTES_MAX,
    BUNDLE_FILES_MAX,
    DOCUMENT_BYTES_MAX,
    DOCUMENT_ITEMS_MAX,
    PATH_CHARS_MAX,
    TAG_SIGN,
    TAG_SIGN1,
)
from protocol.pack.cursor import Cursor, blob, unzigzag, varint, zigzag
from protocol.pack.frames import stream
from protocol.paths import check_paths

_TAGS = frozenset({TAG_SIGN1, TAG_SIGN})
_FILES_LABEL = Manifest.labels["files"]
_PAYLOAD_AT = 2
_EMPTY_DIGEST = hashlib.sha256().digest()


class Fate(IntEnum):
    """What becomes of a file of the old manifest."""

    STAYS = 0
    CHANGES = 1
    GOES = 2


@dataclass(frozen=True, slots=True)
class ExpectedFile:
    """A file of the new manifest: its digest where it is held already, None where it comes from the pack.

    `same_as` is the path of an earlier file from the pack with the same content.
    """

    path: str
    size: int
    digest: bytes | None
    same_as: str | None = None


@dataclass(frozen=True, slots=True)
class ExpectedManifest:
    """A new manifest whose digests from the pack are still to come."""

    files: tuple[ExpectedFile, ...]
    frame: bytes  # the signed document without its files

    def from_pack(self) -> tuple[ManifestFile, ...]:
        """Return the files whose contents the pack carries; their digests are not known yet (zeros)."""
        return tuple(
            ManifestFile(each.path, each.size, bytes(32))
            for each in self.files
            if each.digest is None and each.same_as is None
        )

    def complete(self, made: Mapping[str, bytes]) -> bytes:
        """Return the signed manifest, given the digest of each file that was made from the pack, by path."""
        try:
            files = [[each.path, each.size, each.digest or made[each.same_as or each.path]] for each in self.files]
        except KeyError as error:
            raise MalformedError(f"{error.args[0]} was not made from the pack") from error
        return _assemble(self.frame, files)


def encode_delta(signed: bytes, old: Sequence[ManifestFile], held: Sequence[bytes]) -> bytes:
    """Return the new manifest against the files of an old one and the digests of all that is held, not yet packed."""
    manifest, _ = parse_document(signed, Manifest)
    before = {file.path: file for file in old}
    now = {file.path: file for file in manifest.files}
    numbers = {digest: number for number, digest in reversed(list(enumerate(held)))}
    first: dict[bytes, int] = {}
    fates, sizes, sources = bytearray(), bytearray(), bytearray()
    for file in old:
        new = now.get(file.path)
        fates.append(Fate.GOES if new is None else Fate.CHANGES if new != file else Fate.STAYS)
    added = [file.path.encode() for file in manifest.files if file.path not in before]
    for position, file in enumerate(manifest.files):
        past = before.get(file.path)
        if past == file:
            continue
        # 0: from the pack. Even: the same as a held file. Odd: the same as a file further up in this manifest.
        if not file.size:
            sources += varint(0)
        elif file.digest in numbers:
            sources += varint(2 + 2 * numbers[file.digest])
        elif file.digest in first:
            sources += varint(1 + 2 * first[file.digest])
        else:
            sources += varint(0)
            first[file.digest] = position
        sizes += varint(zigzag(file.size - (past.size if past else 0)))
    return b"".join(blob(bytes(each)) for each in (_frame(signed), fates, b"\0".join(added), sources, sizes))


def decode_delta(packed: bytes, old: Sequence[ManifestFile], held: Sequence[bytes]) -> ExpectedManifest:
    """Return what a packed delta (one stream, as in a delta frame) leads to; raise `MalformedError`."""
    outer = Cursor(packed)
    fields = Cursor(stream(outer, DOCUMENT_BYTES_MAX))
    frame, fates = fields.blob(DOCUMENT_BYTES_MAX), fields.blob(BUNDLE_FILES_MAX)
    paths, sources, sizes = (
        fields.blob(DOCUMENT_BYTES_MAX),
        Cursor(fields.blob(DOCUMENT_BYTES_MAX)),
        Cursor(fields.blob(DOCUMENT_BYTES_MAX)),
    )
    if outer.left or fields.left or len(fates) != len(old) or any(fate > max(Fate) for fate in fates):
        raise MalformedError("a manifest that is told against another than the one held")
    stays = {file.path: file for file, fate in zip(old, fates, strict=True) if fate == Fate.STAYS}
    changes = {file.path: file.size for file, fate in zip(old, fates, strict=True) if fate == Fate.CHANGES}
    names = sorted([*stays, *changes, *_added(paths)])
    if len(names) > BUNDLE_FILES_MAX:
        raise MalformedError("a manifest of more files than a bundle may have")
    try:
        check_paths(names)
    except ValueError as error:
        raise MalformedError(str(error)) from error
    files: list[ExpectedFile] = []
    for path in names:
        if path in stays:
            files.append(ExpectedFile(path, stays[path].size, stays[path].digest))
            continue
        source = sources.varint(4 * BUNDLE_FILES_MAX * 16)
        size = changes.get(path, 0) + unzigzag(sizes.varint(2 * BUNDLE_BYTES_MAX))
        if not 0 <= size <= BUNDLE_BYTES_MAX:
            raise MalformedError(f"{path} has a size that no file may have")
        files.append(_expected(path, size, source, files, held))
    if sources.left or sizes.left or sum(each.size for each in files) > BUNDLE_BYTES_MAX:
        raise MalformedError("a manifest whose files do not add up")
    return ExpectedManifest(tuple(files), frame)


def _expected(path: str, size: int, source: int, files: Sequence[ExpectedFile], held: Sequence[bytes]) -> ExpectedFile:
    if not source:
        return ExpectedFile(path, size, None if size else _EMPTY_DIGEST)
    number, kind = divmod(source, 2)
    if kind == 0 and number - 1 < len(held):
        return ExpectedFile(path, size, held[number - 1])
    if kind == 1 and number < len(files) and files[number].digest is None:
        return ExpectedFile(path, size, None, files[number].same_as or files[number].path)
    raise MalformedError(f"{path} is the same as a file that is not there")


def _added(paths: bytes) -> Iterator[str]:
    if len(paths) > BUNDLE_FILES_MAX * PATH_CHARS_MAX:
        raise MalformedError("a manifest with too many paths")
    try:
        yield from (each.decode() for each in paths.split(b"\0")) if paths else ()
    except UnicodeDecodeError as error:
        raise MalformedError("a manifest with a path that is not UTF-8") from error


def _frame(signed: bytes) -> bytes:
    """Return the signed document with the list of files taken out of its payload."""
    document = cbor.decode(signed, bytes_max=DOCUMENT_BYTES_MAX, items_max=DOCUMENT_ITEMS_MAX, tags=_TAGS)
    parts = list(document.value)
    payload = cbor.decode(parts[_PAYLOAD_AT], bytes_max=DOCUMENT_BYTES_MAX, items_max=DOCUMENT_ITEMS_MAX)
    del payload[_FILES_LABEL]
    parts[_PAYLOAD_AT] = cbor.encode(payload)
    return cbor.encode(cbor2.CBORTag(document.tag, parts))


def _assemble(frame: bytes, files: list[list[object]]) -> bytes:
    document = cbor.decode(frame, bytes_max=DOCUMENT_BYTES_MAX, items_max=DOCUMENT_ITEMS_MAX, tags=_TAGS)
    parts = list(document.value) if isinstance(document, cbor2.CBORTag) else []
    if len(parts) <= _PAYLOAD_AT or not isinstance(parts[_PAYLOAD_AT], bytes):
        raise MalformedError("a manifest that is not a signed document")
    payload = cbor.decode(parts[_PAYLOAD_AT], bytes_max=DOCUMENT_BYTES_MAX, items_max=DOCUMENT_ITEMS_MAX)
    if not isinstance(payload, dict):
        raise MalformedError("a document is a map")
    payload[_FILES_LABEL] = files
    parts[_PAYLOAD_AT] = cbor.encode(payload)
    signed = cbor.encode(cbor2.CBORTag(document.tag, parts))
    if len(signed) > DOCUMENT_BYTES_MAX:
        raise MalformedError("a manifest larger than any may be")
    return signed
