"""Every number of the wire in one place: versions, paths, labels and limits, each with its reason.

Nothing else in the project spells one of these as a literal; SPEC.md repeats them as tables.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

WIRE_VERSION: Final = 1
WIRE_VERSIONS_SPOKEN: Final = frozenset({1})

# CoAP resources: each character is a byte on every request (RFC 7252 section 5.10.1).
PATH_UPLOAD: Final = "u"
PATH_DOCUMENT: Final = "d"
PATH_PIECES: Final = "p"
PATH_BURST: Final = "b"
PATH_PACK: Final = "k"
PATH_ENROL: Final = "e"
PATH_EXCHANGE: Final = "x"  # EDHOC message_1; 16 bytes shorter than its well-known path, which is answered too
PATH_EDHOC: Final = (".well-known", "edhoc")

# COSE (RFC 9052, RFC 9053): header label 1 is "alg", -8 is EdDSA; tags 18 and 98 are COSE_Sign1 and COSE_Sign.
COSE_ALG: Final = 1
COSE_KID: Final = 4
COSE_EDDSA: Final = -8
TAG_SIGN1: Final = 18
TAG_SIGN: Final = 98
SIGNATURE_BYTES: Final = 64
PUBLIC_KEY_BYTES: Final = 32
DIGEST_BYTES: Final = 32
KEY_ID_BYTES: Final = 8

# Context strings: they open every external_aad, so that a signature made for one purpose means nothing for another.
CONTEXT_PARCEL: Final = "digitruck/parcel/1"
CONTEXT_BASE: Final = "digitruck/base/1"
CONTEXT_DOCUMENT: Final = "digitruck/document/1"
CONTEXT_ENROL: Final = "digitruck/enrol/1"

# EDHOC (RFC 9528): an external authorization data item of ours in message_3 names the link; negative labels are
# not used on the wire by lakers, so a private positive one is taken.
EAD_LINK: Final = 28
# A gateway's EDHOC keys are numbered, and C_I, which is one byte anyway, says which of them a truck expects.
EXCHANGE_KEYS: Final = 24

# OSCORE (RFC 8613).
OSCORE_KID_BYTES: Final = 3  # 16 million (truck, link) pairs; each byte is paid on every request
OSCORE_REPLAY_WINDOW: Final = 1024  # a burst reorders across a whole window (shared measurement: 32 loses requests)
OSCORE_SEQUENCE_BLOCK: Final = 256  # sender sequence numbers persisted ahead of use (RFC 8613 appendix B.1.1)
OSCORE_REKEY_AFTER: Final = 1 << 22  # re-key well before the 23-bit-ish comfort limit of a CCM key with an 8-byte tag

# Untrusted CBOR (an 8-byte decimal fraction took 22.9 s to become an integer; colliding keys 1.08 s).
CBOR_BYTES_MAX: Final = 64 * 1024
CBOR_ITEMS_MAX: Final = 20_000
CBOR_DEPTH_MAX: Final = 16

# Datagrams: an IPv6 path carries 1,280 bytes without fragments; less IPv6, UDP, CoAP and OSCORE leaves this payload.
DATAGRAM_PAYLOAD_BYTES_MAX: Final = 1_200
PIECE_BYTES: Final = 1_024
PIECES_IN_REQUEST_MAX: Final = 64
# A burst: many pieces for one request. What one request may set loose is bounded, and so is how slowly it comes.
BURST_PIECES_MAX: Final = 64
BURST_RUNS_MAX: Final = 63
BURST_SPACING_US_MAX: Final = 2_000_000

# Truck names and the like: short, and safe in a path, a label and a header.
NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{0,30}\Z"
NAME_CHARS_MAX: Final = 31
TEXT_CHARS_MAX: Final = 256
PATH_CHARS_MAX: Final = 512

# Parcels.
PARCEL_BYTES_MAX: Final = 16 * 1024
PARCELS_IN_UPLOAD_MAX: Final = 64
PARCEL_ATTEMPTS_MAX: Final = 5
PARCEL_WINDOW: Final = 384
GAPS_MAX: Final = 4_096
RANGES_IN_ACK_MAX: Final = 32
LINKS_MAX: Final = 16
REFUSED_IN_ACK_MAX: Final = 64

# Batches: the newest codec that a gateway knows which does not say, and how many go on from each other in a row.
CODEC_ASSUMED: Final = 3
RUN_BATCHES_MAX: Final = 16

# The truck's own account, an event (SPEC.md, "The truck's account").
ACCOUNT_EVENT: Final = "ledger.account"
ACCOUNT_VALUES_MAX: Final = 60

# Documents.
DOCUMENT_BYTES_MAX: Final = 8 * 1024 * 1024
DOCUMENT_ITEMS_MAX: Final = 400_000
DOCUMENT_INLINE_BYTES_MAX: Final = 1_024  # larger ones are fetched in pieces
# What a kind of document can need at most: the size that an unverified desired state names is not taken at its word.
ROOT_BYTES_MAX: Final = 8 * 1024
DELEGATION_BYTES_MAX: Final = 512 * 1024
CONFIG_BYTES_MAX: Final = 512 * 1024
ROLLOUT_BYTES_MAX: Final = 64 * 1024
DESIRED_BYTES_MAX: Final = 64 * 1024
STICK_BYTES_MAX: Final = 4 * 1024 * 1024
# A stolen key must not use up a document's versions: beyond the free ones they only rise by steps.
VERSION_FREE_MAX: Final = 1 << 40
VERSION_STEP_MAX: Final = 1 << 20
SIGNATURES_MAX: Final = 16
BUNDLE_FILES_MAX: Final = 100_000
BUNDLE_BYTES_MAX: Final = 1 << 40
DESIRED_DIGEST_BYTES: Final = 8
ENROL_SECRET_BYTES: Final = 16
ADDRESSES_MAX: Final = 8
HELD_MANIFESTS_MAX: Final = 16

# Tariffs and budgets, in a configuration.
WINDOWS_MAX: Final = 16  # of a week: of one link, or of the lessons
ROAMING_MAX: Final = 16  # sets of countries with prices of their own
GRANTS_MAX: Final = 1_000  # trucks that share a pool
# A courier's stick. FAT takes no file of 4 GiB and no folder of 65,536 entries: objects are cut and spread.
STICK_ID_BYTES: Final = 16
STICK_KEY_BYTES: Final = 32
STICK_WRAPPED_BYTES_MAX: Final = 128
STICK_TRUCKS_MAX: Final = 1_000
STICK_PACKS_MAX: Final = 4_096
STICK_EPOCHS_MAX: Final = 8
STICKS_REVOKED_MAX: Final = 256
STICK_UPLOADS_MAX: Final = 4_096
STICK_CHUNK_BYTES: Final = 1 << 20
STICK_PART_CHUNKS: Final = 1_024
STICK_CHUNK_TAG_BYTES: Final = 16
STICK_UPLOADS_BYTES_MAX: Final = 4 * 1024 * 1024


class Precedence(IntEnum):
    """How urgent a parcel or download is; lower goes first (NNCP and DTN usage)."""

    FLASH = 0
    PRIORITY = 1
    NORMAL = 2
    BULK = 3


class ParcelKind(IntEnum):
    """What a parcel's payload is."""

    BATCH = 1
    EVENT = 2
    RECEIPT = 3
    SCHEMA = 4
    TOMBSTONE = 5


class DocumentKind(IntEnum):
    """What a document says; the number is inside the signed bytes."""

    ROOT = 1
    DELEGATION = 2
    CONFIG = 3
    MANIFEST = 4
    ROLLOUT = 5
    DESIRED = 6
    STICK = 7


class Outcome(IntEnum):
    """What a truck did with a document (in a receipt)."""

    APPLIED = 1
    REJECTED = 2
    ROLLED_BACK = 3
    HELD = 4


class Refusal(IntEnum):
    """Why a gateway did not take a parcel (in an acknowledgement)."""

    MALFORMED = 1
    BAD_SIGNATURE = 2
    UNKNOWN_EPOCH = 3
    TOO_LARGE = 4
    TAKEN = 5  # its number stands for another parcel: the truck's state was put back or cloned
