"""What the gateway hands out is believed only as far as this machine's own trust documents say."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.belief import read_believed, trusted_set
from gateway.cli.output import CommandError
from gateway.cli.session import load_key
from gateway.keystore import KeyRole
from protocol import cose
from protocol.documents import Addressee, Config, Rollout, sign_document
from protocol.errors import MalformedError
from protocol.numbers import DocumentKind
from tests.gateway.running import RunningGateway

CONFIG = Config(
    document=DocumentKind.CONFIG, version=1, issued_s=1, expires_s=2, addressee=Addressee(("ke-arrow",)), batch_age_s=60
)


def digest(signed: bytes) -> str:
    return cose.digest(signed).hex()


def test_an_operators_document_is_believed_also_when_it_expired(trusted: RunningGateway) -> None:
    signed = sign_document(CONFIG, [load_key("asha", KeyRole.OPERATOR)])
    assert read_believed(signed, Config, digest(signed)) == CONFIG


def test_a_thiefs_document_is_not(trusted: RunningGateway) -> None:
    signed = sign_document(CONFIG, [cose.SigningKey(bytes(32))])
    with pytest.raises(CommandError, match="is not believed"):
        read_believed(signed, Config, digest(signed))


def test_other_bytes_than_were_named_are_not(trusted: RunningGateway) -> None:
    signed = sign_document(CONFIG, [load_key("asha", KeyRole.OPERATOR)])
    with pytest.raises(CommandError, match="other bytes"):
        read_believed(signed, Config, "00" * 32)
    with pytest.raises(MalformedError):
        read_believed(signed, Rollout, digest(signed))


def test_without_trust_documents_it_is_said_that_nothing_was_checked(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trusted_set() is None
    signed = sign_document(CONFIG, [cose.SigningKey(bytes(32))])
    assert read_believed(signed, Config, digest(signed)) == CONFIG
    assert "was not checked" in capsys.readouterr().err
