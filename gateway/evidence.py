"""Evidence on file, and verifying it: every signature of a truck's parcels checked again, anywhere, without a gateway.

The file is JSON lines: a header with the keys that the truck has had, then parcels as they were signed, each schema
before the first batch that needs it, and an end line with the SHA-256 of every line before it. Nothing in it has to be
believed but one thing: that a key is the truck's (`Verifier` takes the one that its caller knows). A schema is named by
its digest, which the batch's signature covers, so what the numbers mean is verified, too.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from protocol.cose import digest
from protocol.errors import MalformedError, PeerError, SignatureError
from protocol.messages import Batch, batch_meaning, content_digest, unseal, verify_parcel
from protocol.numbers import PARCEL_BYTES_MAX, ParcelKind

LINE_BYTES_MAX = 2 * PARCEL_BYTES_MAX + 4_096
FINDINGS_MAX = 1_000
_Hex = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
_Epoch = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]


class EvidenceError(MalformedError):
    """A file that is no evidence, or not all of it; the message says where."""


class Key(Struct, frozen=True):
    """A signing key (Ed25519, hex) that the truck had from `since_ms` to `until_ms` (None: it has it still)."""

    signing_key: _Hex
    since_ms: int
    until_ms: int | None


FORMAT = 2  # 1 had no batches that go on from others


class Header(Struct, frozen=True, tag_field="line", tag="header"):
    """The first line: of which truck and period this is."""

    truck: str
    since_ms: int
    until_ms: int
    exported_ms: int
    keys: list[Key]
    format: int = FORMAT


class SchemaLine(Struct, frozen=True, tag_field="line", tag="schema"):
    """A schema as the truck registered it (base64)."""

    digest: _Hex
    encoded: bytes


class ParcelLine(Struct, frozen=True, tag_field="line", tag="parcel"):
    """A parcel as it was signed (base64). `schema` is what a batch was taken under, None while that waits.

    `base` is the digest of the batch that one goes on from (`content_digest`), which has come before it.

    `was_refused`: the gateway itself does not count it, because it did not verify when its schema came.
    """

    epoch: _Epoch
    sequence: int
    kind: str
    received_ms: int
    sealed: bytes
    schema: _Hex | None = None
    was_refused: bool = False
    base: _Hex | None = None


class End(Struct, frozen=True, tag_field="line", tag="end"):
    """The last line: the number of parcels, and the SHA-256 of all lines before it, line ends included."""

    parcels: int
    sha256: _Hex


Line = Header | SchemaLine | ParcelLine | End
_decoder = msgspec.json.Decoder(Line)


class Finding(Struct, frozen=True):
    """A parcel that does not verify, and why."""

    epoch: str
    sequence: int
    kind: str
    reason: str


class KeyUse(Struct, frozen=True):
    """How many parcels a key verified."""

    signing_key: str
    parcels: int


class Verification(Struct, frozen=True):
    """What came of verifying. `kinds` counts the verified parcels by kind; `findings` are at most 1,000 of `failed`.

    `waiting` batches cannot be verified before their schema comes; `refused` are those that the gateway never counted.
    """

    truck: str
    since_ms: int
    until_ms: int
    parcels: int
    verified: int
    waiting: int
    refused: int
    failed: int
    kinds: dict[str, int]
    schemas: int
    keys: list[KeyUse]
    findings: list[Finding]

    @property
    def holds(self) -> bool:
        """Whether everything that could be verified did."""
        return self.failed == 0


class LineWriter:
    """Writes lines of evidence and keeps their hash for the end."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._parcels = 0

    def write(self, lines: Iterable[Line]) -> bytes:
        """Return the bytes of some lines."""
        data = b""
        for line in lines:
            self._parcels += isinstance(line, ParcelLine)
            data += msgspec.json.encode(line) + b"\n"
        self._hash.update(data)
        return data

    def end(self) -> bytes:
        """Return the last line."""
        return msgspec.json.encode(End(self._parcels, self._hash.hexdigest())) + b"\n"


class Verifier:
    """Takes evidence line by line and verifies it; with `signing_key` (32 bytes) only that key is the truck's."""

    def __init__(self, signing_key: bytes | None = None) -> None:
        self._only = signing_key
        self._header: Header | None = None
        self._keys: list[tuple[Key, bytes]] = []
        self._schemas: set[str] = set()
        self._contents: dict[tuple[int, int], bytes] = {}
        self._hash = hashlib.sha256()
        self._lines = 0
        self._parcels = self._waiting = self._refused = self._failed = 0
        self._kinds: Counter[str] = Counter()
        self._uses: Counter[str] = Counter()
        self._findings: list[Finding] = []
        self._is_whole = False

    def line(self, data: bytes) -> None:
        """Take the next line of a file; raise `EvidenceError` if it is none."""
        self._lines += 1
        if self._is_whole:
            raise EvidenceError(f"line {self._lines}: there is more after the end")
        try:
            line = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EvidenceError(f"line {self._lines} is no line of evidence: {error}") from error
        if isinstance(line, End):
            self._end(line)
        else:
            self._hash.update(data)
            self.take(line)

    def take(self, line: Header | SchemaLine | ParcelLine) -> None:
        """Take a line that is decoded already; raise `EvidenceError` for one out of its place."""
        if (self._header is None) != isinstance(line, Header):
            raise EvidenceError(f"line {self._lines}: evidence begins with one header")
        match line:
            case Header():
                if not 1 <= line.format <= FORMAT:
                    raise EvidenceError(f"this is evidence of format {line.format}; a newer digitruck reads it")
                self._header = line
                self._keys = [(key, bytes.fromhex(key.signing_key)) for key in line.keys]
            case SchemaLine():
                # One that is not what it is called verifies no batch.
                if digest(line.encoded).hex() == line.digest:
                    self._schemas.add(line.digest)
            case ParcelLine():
                self._parcel(line)

    def result(self) -> Verification:
        """Return what came of it; raise `EvidenceError` if there was no header."""
        if self._header is None:
            raise EvidenceError("there is no evidence in this file")
        return Verification(
            truck=self._header.truck,
            since_ms=self._header.since_ms,
            until_ms=self._header.until_ms,
            parcels=self._parcels,
            verified=sum(self._kinds.values()),
            waiting=self._waiting,
            refused=self._refused,
            failed=self._failed,
            kinds=dict(sorted(self._kinds.items())),
            schemas=len(self._schemas),
            keys=[KeyUse(key, count) for key, count in sorted(self._uses.items())],
            findings=self._findings,
        )

    def check_whole(self) -> None:
        """Check that the end line came; raise `EvidenceError`."""
        if not self._is_whole:
            raise EvidenceError(f"the evidence ends after line {self._lines}, without its end line: it was cut off")

    def _end(self, line: End) -> None:
        if line.parcels != self._parcels or line.sha256 != self._hash.hexdigest():
            raise EvidenceError("the lines are not those that the end line counts: the file was changed")
        self._is_whole = True

    def _parcel(self, line: ParcelLine) -> None:
        self._parcels += 1
        try:
            if self._is_waiting(line):
                self._waiting += 1
                return
            key = self._verify(line)
        except PeerError as error:
            if line.was_refused:
                self._refused += 1
                return
            self._failed += 1
            if len(self._findings) < FINDINGS_MAX:
                self._findings.append(Finding(line.epoch, line.sequence, line.kind, str(error)))
            return
        self._kinds[line.kind] += 1
        self._uses[key.hex()] += 1

    def _is_waiting(self, line: ParcelLine) -> bool:
        return line.kind == ParcelKind.BATCH.name.lower() and line.schema is None and not line.was_refused

    def _verify(self, line: ParcelLine) -> bytes:
        """Return the key that verifies a parcel; raise `PeerError`."""
        assert self._header is not None, "the header comes first"
        parcel = unseal(line.sealed)
        if (parcel.sequence, parcel.kind.name.lower()) != (line.sequence, line.kind):
            raise MalformedError("it is not the parcel that it is stored as")
        meaning = None
        if parcel.kind is ParcelKind.BATCH:
            if line.schema not in self._schemas:
                raise MalformedError("its schema is missing, or was changed")
            epoch = int(line.epoch, 16)
            base = Batch.decode(parcel.payload).base_of(epoch, parcel.sequence)
            self._contents[epoch, parcel.sequence] = content_digest(line.sealed)
            if base is not None and self._contents.get(base, b"").hex() != line.base:
                raise MalformedError("the batch that it goes on from is missing, or was changed")
            meaning = batch_meaning(bytes.fromhex(line.schema), None if base is None else self._contents[base])
        for key in self._candidates(line.received_ms):
            try:
                verify_parcel(line.sealed, key, self._header.truck, int(line.epoch, 16), meaning)
            except SignatureError:
                continue
            return key
        raise SignatureError("no key of this truck verifies its signature")

    def _candidates(self, received_ms: int) -> list[bytes]:
        """Return the keys to try: first that of the time; what waited longer was signed with one from before."""
        if self._only is not None:
            return [self._only]

        def is_of_then(key: Key) -> bool:
            return key.since_ms <= received_ms and (key.until_ms is None or received_ms < key.until_ms)

        return [raw for key, raw in sorted(self._keys, key=lambda each: not is_of_then(each[0]))]


async def verify_lines(pages: AsyncIterator[list[Header | SchemaLine | ParcelLine]]) -> Verification:
    """Verify lines that do not come from a file."""
    verifier = Verifier()

    def take(page: list[Header | SchemaLine | ParcelLine]) -> None:
        for line in page:
            verifier.take(line)

    async for page in pages:
        await asyncio.to_thread(take, page)
    return verifier.result()
