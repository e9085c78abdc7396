"""Bundles from the command line: signed here, sent once, resumed, refused with the file named."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.api.auth import Role
from gateway.cli.session import load_key
from gateway.client import SyncClient
from gateway.edition import publish
from gateway.keystore import KeyRole
from gateway.publishing import PublishingError
from protocol import cose
from protocol.documents import Manifest, document_aad, parse_document
from protocol.numbers import DocumentKind
from tests.gateway.cli.conftest import Digitruck
from tests.gateway.fleets import add_truck
from tests.gateway.running import TOKENS, RunningGateway

PUSH = ("bundle", "push", "maths", "--name", "maths", "--key", "library", "--version")
FILES = {"index.html": b"<p>Karibu", "media/a.bin": bytes(100_000), "media/b.bin": bytes(100_000), "empty": b""}


@pytest.fixture
def folder(home: Path) -> Path:
    """A folder of content called maths."""
    for path, data in FILES.items():
        (home / "maths" / path).parent.mkdir(parents=True, exist_ok=True)
        (home / "maths" / path).write_bytes(data)
    return home / "maths"


def test_a_pushed_bundle_is_there_file_by_file(folder: Path, trusted: RunningGateway, digitruck: Digitruck) -> None:
    ran = digitruck(*PUSH, "1.0", "--title", "Hisabati")
    assert "Sent 3 of 3 contents, 100.0 kB of 100.0 kB." in ran.out
    assert "digitruck rollout create maths@1.0" in ran.out
    record = trusted.run(trusted.fleet.bundle("maths", "1.0"))
    assert record is not None
    assert record.manifest.hex() in ran.out
    document = trusted.run(trusted.fleet.document(record.manifest))
    assert document is not None
    manifest, parts = parse_document(document.signed, Manifest)
    shown = {each["name"]: bytes.fromhex(each["public"]) for each in digitruck("key", "show", "--json").json}
    library = shown["library"]
    assert parts.verify({cose.key_id(library): library}, document_aad(DocumentKind.MANIFEST)) == {library}
    assert {file.path: file.digest for file in manifest.files} == {
        path: hashlib.sha256(data).digest() for path, data in FILES.items()
    }
    for file in manifest.files:
        assert trusted.blobs.size(file.digest) == file.size
    assert manifest.title == "Hisabati"


def test_the_next_version_sends_only_what_is_new(folder: Path, trusted: RunningGateway, digitruck: Digitruck) -> None:
    digitruck(*PUSH, "1.0")
    (folder / "index.html").write_bytes(b"<p>Karibu tena")
    ran = digitruck(*PUSH, "1.1")
    assert "Sent 1 of 3 contents, 14 B" in ran.out
    listed = digitruck("bundle", "list", "--json").json
    assert [(each["version"], each["number"]) for each in listed] == [("1.0", 1), ("1.1", 2)]
    assert digitruck("bundle", "show", "maths", "--json").json["bundle"]["version"] == "1.1"


def test_the_same_version_again_changes_nothing_and_another_content_is_refused(
    folder: Path, trusted: RunningGateway, digitruck: Digitruck
) -> None:
    first = digitruck(*PUSH, "1.0").out.splitlines()[0]
    assert digitruck(*PUSH, "1.0").out.splitlines()[0] == first
    (folder / "new.html").write_bytes(b"x")
    ran = digitruck(*PUSH, "1.0", ok=False)
    assert (ran.code, "choose another --version" in ran.err) == (1, True)


def test_a_manifest_can_be_made_again_bit_for_bit(
    folder: Path, trusted: RunningGateway, digitruck: Digitruck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795000000")
    digitruck(*PUSH, "1.0", "--save", "one.cose")
    digitruck(*PUSH, "1.0", "--save", "two.cose")
    assert Path("one.cose").read_bytes() == Path("two.cose").read_bytes()


def test_two_publishers_sign_one_manifest(folder: Path, trusted: RunningGateway, digitruck: Digitruck) -> None:
    digitruck("key", "new", "editor", "--role", "publisher")
    keys = ("--key", "r1", "--key", "r2", "--yes")
    digitruck("trust", "delegate", "--publisher", "maths=library,editor:2", "--without-publisher", "*", *keys)
    digitruck("trust", "push")
    assert digitruck(*PUSH, "1.0", ok=False).code == 1
    digitruck(*PUSH, "1.0", "--save", "m.cose")
    digitruck("trust", "sign", "m.cose", "--key", "editor", "--yes")
    digitruck("trust", "push", "m.cose")
    assert digitruck("bundle", "show", "maths@1.0", "--json").json["missing_files"] == 0


def test_dry_run_reads_everything_and_sends_nothing(folder: Path, digitruck: Digitruck) -> None:
    digitruck("key", "new", "library", "--role", "publisher")
    ran = digitruck(*PUSH, "1.0", "--dry-run")
    assert "4 files, 200.0 kB; 3 distinct contents, 100.0 kB" in ran.err
    assert "Nothing was signed or sent" in ran.out


def test_what_a_truck_could_not_hold_is_named(folder: Path, trusted: RunningGateway, digitruck: Digitruck) -> None:
    (folder / "link").symlink_to("index.html")
    (folder / "a:b").write_bytes(b"")
    ran = digitruck(*PUSH, "1.0", ok=False)
    assert ran.code == 1
    assert "link: a link" in ran.err
    assert "a:b: " in ran.err
    assert ran.err.count("\n") == 1
    assert digitruck("bundle", "list", "--json").json == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--version", "1 0"], "label"),
        (["--version", "1.0", "--name", "Maths"], "name"),
        (["--version", "1.0", "--key", "asha"], "is a operator key"),
        (["--version", "1.0", "--key", "nobody"], "no key 'nobody'"),
    ],
)
def test_mistakes_are_named_before_anything_is_sent(
    folder: Path, trusted: RunningGateway, digitruck: Digitruck, changes: list[str], message: str
) -> None:
    ran = digitruck("bundle", "push", "maths", "--name", "maths", "--key", "library", *changes, ok=False)
    assert (ran.code, message in ran.err) == (1, True), ran
    assert digitruck("bundle", "list", "--json").json == []


def test_show_lists_files_and_unknown_versions_name_the_known(
    folder: Path, trusted: RunningGateway, digitruck: Digitruck
) -> None:
    digitruck(*PUSH, "1.0")
    out = digitruck("bundle", "show", "maths@1.0", "--files").out
    assert "media/b.bin" in out
    assert "0 files, 0 B" in out
    assert "it has 1.0" in digitruck("bundle", "show", "maths@2.0", ok=False).err
    assert "bundle list" in digitruck("bundle", "show", "history", ok=False).err


def test_a_manifest_is_made_here_signed_there_and_pushed_elsewhere(
    folder: Path, trusted: RunningGateway, digitruck: Digitruck, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795000000")
    make = ("bundle", "make", "maths", "--name", "maths", "--version", "3.0")
    digitruck(*make)
    digitruck(*make, "--output", "again.manifest")
    assert (home / "maths-3.0.manifest").read_bytes() == (home / "again.manifest").read_bytes()
    digitruck("bundle", "sign", "maths-3.0.manifest", "--key", "library", "--yes")
    assert "maths 3.0: 4 files" in digitruck("trust", "show", "maths-3.0.cose").out
    (folder / "index.html").write_bytes(b"<p>Other")
    refused = digitruck("bundle", "push", "maths", "--signed", "maths-3.0.cose", ok=False)
    assert (refused.code, "index.html differs" in refused.err) == (1, True)
    (folder / "index.html").write_bytes(FILES["index.html"])
    assert "Sent 3 of 3 contents" in digitruck("bundle", "push", "maths", "--signed", "maths-3.0.cose").out
    assert digitruck("bundle", "show", "maths@3.0", "--json").json["missing_files"] == 0
    again = digitruck("bundle", "push", "maths", "--signed", "maths-3.0.cose").out
    assert "Sent 0 of 3 contents" in again


def test_a_script_publishes_in_three_lines_and_may_repeat_itself(
    folder: Path, trusted: RunningGateway, digitruck: Digitruck
) -> None:
    key = load_key("library", KeyRole.PUBLISHER)
    with SyncClient(trusted.url, TOKENS[Role.PUBLISHER]) as client:
        sent = [publish(client, folder, name="maths", version="5.0", key=key).sent_files for _ in range(2)]
        assert sent == [3, 0]
        (folder / "index.html").write_bytes(b"<p>Other")
        with pytest.raises(PublishingError, match="choose another version"):
            publish(client, folder, name="maths", version="5.0", key=key)
    assert digitruck("bundle", "show", "maths", "--json").json["missing_files"] == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_alone_pushes_what_was_signed(folder: Path, trusted: RunningGateway, digitruck: Digitruck) -> None:
    digitruck("bundle", "make", "maths", "--name", "maths", "--version", "6.0")
    digitruck("bundle", "sign", "maths-6.0.manifest", "--key", "library", "--yes")

    def put(file: Path, where: str, media: str) -> None:
        headers = ["-H", f"Authorization: Bearer {TOKENS[Role.PUBLISHER]}", "-H", f"Content-Type: {media}"]
        command = ["curl", "-fsS", "-X", "PUT", *headers, "--data-binary", f"@{file}", f"{trusted.url}/v1/{where}"]
        subprocess.run(command, check=True, capture_output=True)

    for path in FILES:
        digest = hashlib.sha256(FILES[path]).hexdigest()
        put(folder / path, f"blobs/{digest}", "application/octet-stream")
    put(Path("maths-6.0.cose"), "documents", "application/cose")
    assert digitruck("bundle", "show", "maths@6.0", "--json").json["missing_files"] == 0


@pytest.mark.parametrize("junk", [b"", b"junk", b"\xa0"])
def test_what_is_no_manifest_is_not_signed(junk: bytes, trusted: RunningGateway, digitruck: Digitruck) -> None:
    Path("m.manifest").write_bytes(junk)
    ran = digitruck("bundle", "sign", "m.manifest", "--key", "library", "--yes", ok=False)
    assert (ran.code, "is no manifest" in ran.err) == (1, True)


def test_a_dry_run_says_what_each_truck_would_take(folder: Path, trusted: RunningGateway, digitruck: Digitruck) -> None:
    (folder / "text.html").write_text("".join(f"<p>line {n * n}</p>" for n in range(20_000)))
    digitruck(*PUSH, "1.0")
    manifest = bytes.fromhex(digitruck("bundle", "show", "maths", "--json").json["bundle"]["manifest"])
    truck = trusted.run(add_truck(trusted.fleet))
    trusted.run(truck.receipt(DocumentKind.MANIFEST, manifest, name="maths"))
    with (folder / "text.html").open("a") as text:
        text.write("<p>one more line</p>")
    ran = digitruck("bundle", "push", "maths", "--name", "maths", "--version", "1.1", "--dry-run")
    update, install = [line.split() for line in ran.out.splitlines()[1:3]]
    assert update[:4] == ["ke-arrow", "maths", "1.0", "1"]
    assert update[5] == "B", "an update is some bytes"
    assert install[:3] == ["(a", "first", "install)"]
    assert "kB" in install
    assert [each["version"] for each in digitruck("bundle", "list", "--json").json] == ["1.0"]
