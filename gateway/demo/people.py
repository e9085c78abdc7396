"""What people do in the demo: hold keys, sign documents, publish. The gateway only gets what they signed.

Three persons hold root keys, two of whom must sign; one operates, one publishes. Their keys and trust documents lie
where `digitruck` looks for them when XDG_DATA_HOME is this folder, so that a person can go on by hand.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from gateway import publishing
from gateway.cli.trustfiles import TrustFolder, open_signed
from gateway.client import Client
from gateway.keystore import KeyRole, Keystore
from protocol.cose import SigningKey
from protocol.documents import (
    Addressee,
    CollectorConfig,
    Config,
    Delegation,
    Document,
    LinkConfig,
    OperatorRole,
    PublisherRole,
    RoleKeys,
    Rollout,
    Root,
    sign_document,
)
from protocol.numbers import DocumentKind, Precedence

GROUP = "demo"
_ROOT_HOLDERS = ("asha", "juma", "wanjiru")
_OPERATOR, _PUBLISHER = "demo-operator", "demo-library"
_VALID_S = 30 * 86_400


class People:
    """The five keys of the demo, kept in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        store = Keystore(folder / "digitruck" / "keys")
        self._trust = TrustFolder(folder / "digitruck" / "trust")
        self._trust.folder.mkdir(parents=True, exist_ok=True)
        self._roots = [store.new(name, KeyRole.ROOT, secrets.token_bytes(32)).signing for name in _ROOT_HOLDERS]
        self._operator = store.new(_OPERATOR, KeyRole.OPERATOR, secrets.token_bytes(32)).signing
        self._publisher = store.new(_PUBLISHER, KeyRole.PUBLISHER, secrets.token_bytes(32)).signing

    async def found_trust(self, client: Client) -> str:
        """Make the root (two of three) and the delegation, and put both; return the root's digest (hex)."""
        freshness = bytes.fromhex((await client.trust()).freshness_key)
        issued_s = int(time.time())
        root = Root(
            document=DocumentKind.ROOT,
            version=1,
            issued_s=issued_s,
            expires_s=issued_s + _VALID_S,
            root=RoleKeys(2, tuple(each.public for each in self._roots)),
            gateway=RoleKeys(1, (freshness,)),
        )
        delegation = Delegation(
            document=DocumentKind.DELEGATION,
            version=1,
            issued_s=issued_s,
            expires_s=issued_s + _VALID_S,
            operators=(OperatorRole("*", RoleKeys(1, (self._operator.public,))),),
            publishers=(PublisherRole("", RoleKeys(1, (self._publisher.public,))),),
        )
        digests = [await client.put_document(self._keep(each)) for each in (root, delegation)]
        return digests[0].digest

    async def configure(
        self, client: Client, *, version: int, batch_age_s: int, collectors: dict[str, int], links: Sequence[LinkConfig]
    ) -> None:
        """Sign and put the configuration of the whole group; `collectors` is name to period (s)."""
        issued_s = int(time.time())
        config = Config(
            document=DocumentKind.CONFIG,
            version=version,
            issued_s=issued_s,
            expires_s=issued_s + _VALID_S,
            addressee=Addressee((), GROUP),
            batch_age_s=batch_age_s,
            collectors=tuple(CollectorConfig(name, period_s) for name, period_s in collectors.items()),
            links=tuple(links),
            confirm_within_s=60,
        )
        await client.put_document(sign_document(config, [self._operator]))

    async def publish(
        self, client: Client, folder: Path, *, name: str, label: str, version: int, title: str
    ) -> publishing.Pushed:
        """Make a bundle of a folder, sign its manifest, and push what the gateway does not have."""
        source = publishing.scan(folder)
        issued_s = int(time.time())
        manifest = publishing.make_manifest(
            source,
            name=name,
            label=label,
            version=version,
            issued_s=issued_s,
            expires_s=issued_s + _VALID_S,
            title=title,
        )
        return await publishing.push(client, source, sign_document(manifest, [self._publisher]))

    async def roll_out(self, client: Client, *, bundle: str, manifest: str, version: int) -> None:
        """Give the whole group a version of a bundle; `manifest` is its digest (hex)."""
        issued_s = int(time.time())
        rollout = Rollout(
            document=DocumentKind.ROLLOUT,
            version=version,
            issued_s=issued_s,
            expires_s=issued_s + _VALID_S,
            addressee=Addressee((), GROUP),
            bundle=bundle,
            manifest=bytes.fromhex(manifest),
            precedence=Precedence.BULK,
        )
        await client.create_rollout(sign_document(rollout, [self._operator]))

    def _keep(self, document: Document) -> bytes:
        two_of_three: list[SigningKey] = self._roots[:2]
        signed = sign_document(document, two_of_three)
        name = f"{document.kind.name.lower()}-{document.version}.cose"
        self._trust.save(open_signed(self._trust.folder / name, signed))
        return signed
