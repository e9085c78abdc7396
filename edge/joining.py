"""Joining a fleet with a one-time code: make keys, have the gateway prove itself, pin the root, then make it durable.

Safe to repeat at any point: the keys stay, an unanswered enrolment is asked for again, and nothing counts as joined
before the enrolment file is on the disk.
"""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import structlog
from aiocoap.numbers import codes

from edge.clock import boottime
from edge.config import EdgeConfig, LinkSettings
from edge.identity import Enrolment, Keys, make_keys, save_enrolment
from edge.link import Link, LinkDownError
from edge.spending import Unmetered
from protocol import cose
from protocol.errors import DigitruckError, UntrustedError
from protocol.joincode import JoinCode
from protocol.messages import Enrolled, EnrolRequest, enrol_proof
from protocol.numbers import PATH_DOCUMENT, PATH_ENROL, DocumentKind, Precedence
from protocol.trust import TrustedSet
from store.database import open_database
from store.documents import Documents
from store.schema import STATE

log = structlog.get_logger("edge.joining")

_TRIES = 3
_ANSWER_S = 10.0
_MB = 1_000_000


async def join(code: JoinCode, config: EdgeConfig, data: Path) -> Enrolment:
    """Enrol this truck over the first link that reaches a gateway; raise `DigitruckError` with the next step."""
    keys = make_keys(data / "identity")
    last: DigitruckError = LinkDownError("no link is configured")
    for settings in sorted(config.link, key=lambda each: each.price_per_mb):
        try:
            enrolment, root = await _join_over(settings, code, keys)
        except LinkDownError as failure:
            last = failure
            continue
        _pin(root, enrolment, data, config)
        return enrolment
    raise LinkDownError(f"{last}; check the links in edge.toml, then run the same command again")


async def _join_over(settings: LinkSettings, code: JoinCode, keys: Keys) -> tuple[Enrolment, bytes]:
    link = Link(
        settings,
        keys=keys,
        gateways=code.addresses,
        gateway_key=code.gateway_key,
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
        answer = Enrolled.decode(await _ask(link, codes.POST, PATH_ENROL, ask.encode(), ()))
        query = base64.urlsafe_b64encode(code.root).decode().rstrip("=")
        root = await _ask(link, codes.GET, PATH_DOCUMENT, b"", (query,))
    finally:
        await link.close()
    if cose.digest(root) != code.root:
        raise UntrustedError("the gateway sent another root than the code pins: ask the operator for a new code")
    addresses = code.addresses
    return Enrolment(code.truck, answer.group, addresses, code.gateway_key, code.root), root


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


def _pin(root: bytes, enrolment: Enrolment, data: Path, config: EdgeConfig) -> None:
    trust = TrustedSet(root, truck=enrolment.truck, group=enrolment.group)
    state = open_database(data / "state.db", schema=STATE, share_bytes=config.state_mb_max * _MB)
    try:
        documents = Documents(state)
        with state.atomic():
            # Another fleet's documents and versions mean nothing under this root.
            documents.forget_versions(tuple(DocumentKind))
            documents.put_trusted(DocumentKind.ROOT, "", trust.root.version, cose.digest(root), root)
    finally:
        state.close()
    save_enrolment(data / "identity", enrolment)
    log.info("truck.joined", truck=enrolment.truck, group=enrolment.group)
