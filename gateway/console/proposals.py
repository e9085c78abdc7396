"""Documents that wait for a person's signature: encoded here, read again, shown and signed in the person's browser.

The gateway has no operator's key. It proposes the bytes of a document; the browser decodes those very bytes to show
what they say, and signs them with a key that never leaves it, or the person runs the command that does the same.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.console.pages import View
from protocol.documents import Document, document_aad
from protocol.wire import WireMap


@dataclass(frozen=True, slots=True)
class Proposal:
    """A document to be signed: what changes, the command that does the same, where it is put, where to go on."""

    document: Document
    title: str
    differences: Sequence[str]
    command: str
    put: str
    done: str


def view_of(proposal: Proposal) -> View:
    """Return the page on which a proposal is signed."""
    document = proposal.document
    return View(
        "sign.html",
        {
            "proposal": proposal,
            "payload": base64.b64encode(document.encode()).decode(),
            "aad": base64.b64encode(document_aad(document.kind)).decode(),
            "kind": document.kind.name.lower(),
            "labels": labels_of(document),
        },
    )


def labels_of(document: WireMap) -> dict[int, str]:
    """Return the names of a document's labels, so that what is shown of its bytes can be read."""
    return {number: name for name, number in type(document).labels.items()}
