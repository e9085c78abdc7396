"""Joining a fleet with a one-time code: make keys, have the gateway prove itself, pin the root, then make it durable.

Safe to repeat at any point: the keys stay, an enrolment whose answer was lost is asked for again under these keys
although its code is used up, and nothing counts as joined before the enrolment file is on the disk.
"""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress
from pathlib import Path

import structlog
from aiocoap.numbers import codes

from edge.board import board_name
from edge.clock import boottime, save_new_floor
from edge.config import EdgeConfig, LinkSettings
from edge.identity import (
    Enrolment,
    Keys,
    NotEnrolledError,
    load_enrolment,
    make_keys,
    make_next_keys,
    save_enrolment,
    save_next,
)
from edge.link import Link
from edge.link_errors import LinkDownError, RefusedError, SessionLostError
from edge.spending import Unmetered
from protocol import cose
from protocol.documents import ExchangeKey
from protocol.errors import DigitruckError, LocalError, UntrustedError
from protocol.joincode import JoinCode
from protocol.messages import Enrolled, EnrolRequest, enrol_proof, seal
from protocol.numbers import PATH_DOCUMENT, PATH_ENROL, DocumentKind, Precedence
from protocol.trust import TrustedSet
from store.database import Database, open_database
from store.documents import Documents
from store.resealing import reseal_queue
from store.schema import STATE

log = structlog.get_logger("edge.joining")

_TRIES = 3
_ANSWER_S = 10.0
_MB = 1_000_000


async def join(code: JoinCode, config: EdgeConfig, data: Path, *, new_keys: bool = False) -> Enrolment:
    """Enrol this truck over the first link that reaches a gateway; raise `DigitruckError` with the next step.

    With `new_keys` the truck's keys are replaced; what waits in its queue is signed again with the new one.
    """
    identity = data / "identity"
    if new_keys:
        _check_name(identity, code.truck)
    keys = make_next_keys(identity) if new_keys else make_keys(identity)
    # First of all: a code must not be used up while a daemon holds the database, or on a disk that takes nothing.
    state = open_database(data / "state.db", schema=STATE, share_bytes=config.state_mb_max * _MB, host=board_name())
    try:
        enrolment, root, time_s = await _join_over_any(config, code, keys)
        _pin(root, enrolment, state, time_s)
        if new_keys:
            count = reseal_queue(state, lambda parcel, digest: seal(keys.signing, parcel, enrolment.truck, digest))
            log.info("queue.resealed", parcels=count)
    finally:
        state.close()
    if new_keys:
        save_next(identity, enrolment)
    else:
        save_enrolment(identity, enrolment)
    log.info("truck.joined", truck=enrolment.truck, group=enrolment.group)
    return enrolment


def _check_name(identity: Path, truck: str) -> None:
    """Check that a code with new keys is for this very truck: what waits in its queue would become another's."""
    with suppress(NotEnrolledError):
        known = load_enrolment(identity).truck
        if known != truck:
            raise LocalError(f"this truck is {known} and the code is for {truck}: ask for a code for {known}")


async def _join_over_any(config: EdgeConfig, code: JoinCode, keys: Keys) -> tuple[Enrolment, bytes, int]:
    last: DigitruckError = LinkDownError("no link is configured")
    for settings in sorted(config.link, key=lambda each: each.price_per_mb):
        try:
            return await _join_over(settings, code, keys)
        except LinkDownError as failure:
            last = failure
    raise LinkDownError(f"{last}; check the links in edge.toml, then run the same command again")


async def _join_over(settings: LinkSettings, code: JoinCode, keys: Keys) -> tuple[Enrolment, bytes, int]:
    link = Link(
        settings,
        keys=keys,
        gateways=code.addresses,
        gateway_keys=lambda: (ExchangeKey(code.key_number, code.gateway_key),),
        contexts=None,
        spending=Unmetered(),
        monotonic=boottime,
    )
    try:
        credential = await _reach(link, len(settings.gateways or code.addresses))
        proof = enrol_proof(code.truck, code.secret, keys.signing.public, credential, code.gateway_key)
        ask = EnrolRequest(
            truck=code.truck, secret=code.secret, signing_key=keys.signing.public, proof=keys.signing.sign(proof)
        )
        try:
            answer = Enrolled.decode(await _ask(link, codes.POST, PATH_ENROL, ask.encode(), ()))
        except RefusedError as refusal:
            answer = await _ask_again(link, ask, refusal)
        query = base64.urlsafe_b64encode(code.root).decode().rstrip("=")
        root = await _ask(link, codes.GET, PATH_DOCUMENT, b"", (query,))
    finally:
        await link.close()
    if cose.digest(root) != code.root:
        raise UntrustedError("the gateway sent another root than the code pins: ask the operator for a new code")
    addresses = code.addresses
    enrolment = Enrolment(code.truck, answer.group, addresses, code.gateway_key, code.root, code.key_number)
    return enrolment, root, answer.time_s


async def _ask_again(link: Link, ask: EnrolRequest, refusal: RefusedError) -> Enrolled:
    """Ask as the truck that it may have become: the code is used up, perhaps by this very truck."""
    try:
        await link.join(again=True)
        return Enrolled.decode(await _ask(link, codes.POST, PATH_ENROL, ask.encode(), ()))
    except (RefusedError, SessionLostError):
        step = f"ask the operator for a new code (`digitruck enrol {ask.truck}`)"
        raise UntrustedError(f"{refusal}; {step}") from None


async def _reach(link: Link, gateways: int) -> bytes:
    for left in reversed(range(gateways)):
        try:
            return await link.join()
        except LinkDownError:
            # The link has turned to the next gateway of the code.
            if not left:
                raise
    raise LinkDownError("no gateway is named")


async def _ask(link: Link, method: codes.Code, path: str, payload: bytes, query: tuple[str, ...]) -> bytes:
    for attempt in range(_TRIES):
        try:
            answered = await link.request(
                method,
                path,
                payload,
                precedence=Precedence.PRIORITY,
                cause="enrol",
                timeout_s=_ANSWER_S * (attempt + 1),
                query=query,
            )
        except LinkDownError:
            if attempt == _TRIES - 1:
                raise
            await asyncio.sleep(0.1)
        else:
            return answered.payload
    raise LinkDownError("no answer")


def _pin(root: bytes, enrolment: Enrolment, state: Database, time_s: int) -> None:
    trust = TrustedSet(root, truck=enrolment.truck, group=enrolment.group)
    documents = Documents(state)
    with state.atomic():
        held = documents.current(DocumentKind.ROOT)
        if held is None or held.digest != cose.digest(root):
            # Another fleet's documents and versions mean nothing under this root.
            documents.forget_versions(tuple(DocumentKind))
        # The code is an operator's word for this gateway: what others told of the time before is void.
        save_new_floor(documents.settings, time_s)
        documents.put_trusted(DocumentKind.ROOT, "", trust.root.version, cose.digest(root), root)
