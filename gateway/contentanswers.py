"""What the gateway's HTTP API answers about content: bundles, uploads, rollouts and quotes, as in `gateway.answers`."""

from __future__ import annotations

from msgspec import Struct

from gateway.answers import DocumentRow


class Bundle(Struct, frozen=True):
    """One version of a bundle; `version` is its label, `number` counts."""

    name: str
    version: str
    number: int
    manifest: str
    content: str
    title: str
    files: int
    size: int
    received_ms: int
    put_by: str


class BundlePage(Struct, frozen=True):
    """A page of bundle versions."""

    items: list[Bundle]
    next: str | None


class BundleFile(Struct, frozen=True):
    """One file of a bundle; `here` tells whether its bytes were uploaded."""

    path: str
    size: int
    digest: str
    here: bool


class BundleDetail(Bundle, frozen=True):
    """A bundle version with a page of its files, and what is still to be uploaded of all of them."""

    missing_files: int
    missing_bytes: int
    items: list[BundleFile]
    next: str | None


class Rollout(Struct, frozen=True):
    """Which trucks should have which bundle version; None as manifest takes the bundle away.

    `state` is running, paused, halted or aborted; `stage` of `stages` (percent of the trucks that each reaches) is
    open. `quoted_*` is what was expected of it.
    """

    id: str
    bundle: str
    manifest: str | None
    version: str | None
    precedence: str
    state: str
    stage: int
    stages: list[int]
    reason: str
    changed_by: str
    changed_ms: int
    stop_at_percent: int | None
    dark_after_s: int
    deadline_s: int | None
    cost_milli_max: int | None
    currency: str
    quoted_bytes: int | None
    quoted_milli: int | None
    quoted_currency: str | None
    document: DocumentRow


class RolloutPage(Struct, frozen=True):
    """A page of rollouts, newest first."""

    items: list[Rollout]
    next: str | None


class RolloutProgress(Struct, frozen=True):
    """How far one truck is: its state, why it is not further, and what content has cost it since its release."""

    truck: str
    state: str
    reason: str
    stage: int | None
    released_ms: int | None
    last_heard_ms: int | None
    receipt_ms: int | None
    content_bytes: int
    money_milli: int | None
    currency: str | None


class RolloutDetail(Rollout, frozen=True):
    """A rollout with a page of its trucks, and how many of all of them are in each state."""

    counts: dict[str, int]
    items: list[RolloutProgress]
    next: str | None


class LinkQuote(Struct, frozen=True):
    """What a bundle version costs over one link; `fits` tells whether the period's budget still holds it.

    Money is 0 unless `is_priced`. `transfer_s` is while the link is there, `days` until all is through; None where
    nothing is known. `usb_saves_*` is what a stick would save.
    """

    link: str
    wire_bytes: int
    billed_bytes: int
    money_milli: int
    currency: str
    is_priced: bool
    fits: bool
    transfer_s: int | None
    days: float | None
    loss_up: float | None
    loss_down: float | None
    usb_saves_bytes: int
    usb_saves_milli: int


class TruckQuote(Struct, frozen=True):
    """What a bundle version costs for one truck, over each of its links; `making`: its pack is not made yet."""

    truck: str
    file_bytes: int
    files: int
    pack_bytes: int | None
    making: bool
    links: list[LinkQuote]


class Quote(Struct, frozen=True):
    """What a bundle version costs for a page of trucks."""

    bundle: str
    version: str
    items: list[TruckQuote]
    next: str | None


class StickTruckPlan(Struct, frozen=True):
    """What one truck gets on a stick: its desired state (base64); digests of documents, manifests, manifests held."""

    truck: str
    desired: str
    documents: list[str]
    manifests: list[str]
    held: list[str]


class CourierStick(Struct, frozen=True, kw_only=True):
    """A courier's stick."""

    stick: str
    trucks: list[str]
    sealed: bool
    made_ms: int
    made_by: str
    expires_ms: int
    revoked_ms: int | None
    imported_ms: int | None


class StickPlan(CourierStick, frozen=True, kw_only=True):
    """What is to be written on a stick: `signed` (base64) as stick.cose, what its trucks get, `key` (hex) seals it."""

    signed: str
    key: str | None
    plans: list[StickTruckPlan]


class StickPage(Struct, frozen=True):
    """A page of sticks, newest first."""

    items: list[CourierStick]
    next: str | None


class Carried(Struct, frozen=True):
    """What became of a file of a truck: parcels that are new, known before, refused."""

    truck: str
    new: int
    known: int
    refused: int


class Upload(Struct, frozen=True):
    """How far an upload is: `received` of `size` bytes."""

    digest: str
    received: int
    size: int
