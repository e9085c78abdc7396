"""An edition of a bundle published from a script: read, signed and sent in one call that may be repeated."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from gateway.client import SyncClient
from gateway.contentanswers import Bundle
from gateway.publishing import Progress, PublishingError, Pushed, make_manifest, push, scan
from protocol import cose
from protocol.documents import Manifest, parse_document, sign_document


def publish(
    client: SyncClient,
    folder: str | Path,
    *,
    name: str,
    version: str,
    key: cose.SigningKey,
    content: str = "static",
    title: str = "",
    valid_s: int = 5 * 365 * 86_400,
    progress: Progress | None = None,
) -> Pushed:
    """Publish a folder as a version of a bundle, for scripts; raise `PublishingError` or `ApiError`.

    A version that is there already with the same content is sent as far as it is missing, so a script may repeat
    itself. `key` is a publisher's: `gateway.keystore.Keystore(folder).load(name).signing`, or another holder's.
    """
    source = scan(Path(folder), progress)
    published = [each for each in client.bundles() if each.name == name]
    same = next((each for each in published if each.version == version), None)
    issued_s = int(time.time())
    manifest = make_manifest(
        source,
        name=name,
        label=version,
        version=1 + max((each.number for each in published), default=0),
        issued_s=issued_s,
        expires_s=issued_s + valid_s,
        content=content,
        title=title,
    )
    signed = sign_document(manifest, [key])
    if same is not None:
        signed = client.document(same.manifest)
        before, _ = parse_document(signed, Manifest)
        if (before.files, before.content, before.title) != (manifest.files, content, title):
            raise PublishingError(f"{name} {version} was published with other content: choose another version")
    held = held_of(client, published)
    return client.run(push(client.client, source, signed, held=held, progress=progress))


def held_of(client: SyncClient, published: Sequence[Bundle]) -> frozenset[bytes]:
    """Return the digests of the newest version's contents, if the gateway has all of them: nobody need ask for each."""
    newest = max(published, key=lambda each: each.number, default=None)
    if newest is None or client.bundle(newest.name, newest.version, limit=1).missing_files:
        return frozenset()
    manifest, _ = parse_document(client.document(newest.manifest), Manifest)
    return frozenset(file.digest for file in manifest.files)
