"""`digitruck bundle`: make a bundle of a folder, sign it here, push it, and see what was published."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from gateway import publishing
from gateway.cli.belief import read_believed
from gateway.cli.bundle_diff import diff_command
from gateway.cli.bundlesigning import read_signed_manifest, sign_command, write_manifest
from gateway.cli.files import write_private
from gateway.cli.output import (
    CommandError,
    examples,
    instant,
    json_option,
    note,
    print_fields,
    print_json,
    print_table,
    say,
    size,
)
from gateway.cli.prediction import predict, show
from gateway.cli.session import gateway, load_key, load_session
from gateway.cli.times import duration, now_s
from gateway.client import SyncClient
from gateway.contentanswers import Bundle, BundleFile
from gateway.edition import held_of
from gateway.keystore import KeyRole
from protocol import cose
from protocol.documents import BUNDLE_KINDS, Manifest, document_aad, sign_document


@click.group(
    epilog=examples(
        "digitruck bundle push ./maths --name maths --version 2026.11 --key library",
        "digitruck bundle list",
        "digitruck bundle show maths@2026.11",
    )
)
def bundle() -> None:
    """Content bundles: a folder of files with a signed manifest."""


bundle.add_command(diff_command)


bundle.add_command(sign_command)

_kind_option = click.option(
    "--kind", type=click.Choice(BUNDLE_KINDS), default="static", show_default=True, help="How trucks serve it."
)
_title_option = click.option("--title", default="", help="What the classroom reads.")
_valid_option = click.option(
    "--valid", type=duration, default="1825d", show_default=True, help="How long it is believed."
)


@bundle.command(
    "push",
    epilog=examples(
        "digitruck bundle push ./maths --name maths --version 2026.11 --key library",
        "digitruck bundle push ./maths --name maths --version 2026.11 --key library --dry-run",
        "digitruck bundle push ./maths --signed maths-2026.11.cose",
        "digitruck bundle push ./wiki --name wiki --version 1 --kind zim --title 'Wikipedia' --key library",
    ),
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--name", help="The bundle's name: a-z, 0-9 and -.")
@click.option("--version", "label", help="The version that people see, e.g. 2026.11.")
@click.option("--key", "keys", multiple=True, metavar="NAME", help="Your publisher's key; repeatable.")
@_kind_option
@_title_option
@_valid_option
@click.option("--dry-run", is_flag=True, help="Say what it would take of each truck; sign and send nothing.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Keep the manifest for more signatures.")
@click.option("--signed", type=click.Path(dir_okay=False, path_type=Path), help="A manifest that was signed elsewhere.")
def bundle_push(
    folder: Path,
    name: str | None,
    label: str | None,
    keys: tuple[str, ...],
    kind: str,
    title: str,
    valid: int,
    dry_run: bool,
    save: Path | None,
    signed: Path | None,
) -> None:
    """Publish the files of DIR as a version of a bundle.

    The manifest is signed on this machine, or was on another one (`bundle make`, `bundle sign`, then --signed). What
    the gateway has already is not sent again, and a push that broke off goes on where it was. SOURCE_DATE_EPOCH, if
    set, is the time in the manifest, so that it can be made again.
    """
    if signed is not None:
        if name or label or keys or save or dry_run:
            raise click.UsageError("--signed brings name, version and signatures along: leave the other options out")
        _push_signed(folder, signed)
        return
    if not name or not label or not (keys or dry_run):
        raise click.UsageError("--name, --version and --key are needed, or --signed FILE")
    signing = [load_key(each, KeyRole.PUBLISHER) for each in keys]
    if not dry_run:
        load_session()  # before a large folder is read for nothing
    source = _scanned(folder)
    issued_s = _issued_s()

    def manifest_of(version: int) -> Manifest:
        return publishing.make_manifest(
            source,
            name=name,
            label=label,
            version=version,
            issued_s=issued_s,
            expires_s=issued_s + valid,
            content=kind,
            title=title,
        )

    manifest = manifest_of(1)
    distinct = source.blobs()
    _note_source(manifest, source)
    if dry_run:
        _predict(source, manifest)
        say("This folder can be published. Nothing was signed or sent.")
        return
    with gateway() as client:
        published = [each for each in client.bundles() if each.name == name]
        same = next((each for each in published if each.version == label), None)
        if same is not None:
            document = _signed_before(client, same, manifest)
            note(f"{name} {label} was published already; what is missing of it is sent.")
        else:
            manifest = manifest_of(max((each.number for each in published), default=0) + 1)
            document = sign_document(manifest, signing)
        held = held_of(client, published)
        if save is not None:
            several = cose.sign(signing, manifest.encode(), document_aad(manifest.document))
            write_private(save, several)
            say(f"{save}: give it to the next signer (digitruck trust sign {save.name} --key THEIRS), then trust push")
        with progress_bar("sending") as progress:
            if save is not None:
                client.run(publishing.push_blobs(client.client, source, held=held, progress=progress))
                return
            pushed = client.run(publishing.push(client.client, source, document, held=held, progress=progress))
    _say_pushed(pushed, manifest, len(distinct))


@bundle.command(
    "make",
    epilog=examples(
        "digitruck bundle make ./maths --name maths --version 2026.11",
        "digitruck bundle make ./maths --name maths --version 2026.11 --output maths.manifest",
    ),
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The bundle's name: a-z, 0-9 and -.")
@click.option("--version", "label", required=True, help="The version that people see, e.g. 2026.11.")
@click.option("--number", type=click.IntRange(1, 1 << 53), help="What versions are counted by; the time if left out.")
@_kind_option
@_title_option
@_valid_option
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="NAME-VERSION.manifest if left out.")
def bundle_make(
    folder: Path, name: str, label: str, number: int | None, kind: str, title: str, valid: int, output: Path | None
) -> None:
    """Make the manifest of DIR, to be signed on another machine; needs no key and no gateway.

    The same folder, options and SOURCE_DATE_EPOCH give the same bytes on every machine.
    """
    source = _scanned(folder)
    issued_s = _issued_s()
    manifest = publishing.make_manifest(
        source,
        name=name,
        label=label,
        version=number or max(1, issued_s),
        issued_s=issued_s,
        expires_s=issued_s + valid,
        content=kind,
        title=title,
    )
    _note_source(manifest, source)
    write_manifest(manifest, output or Path(f"{name}-{label}.manifest"))


@bundle.command("list", epilog=examples("digitruck bundle list", "digitruck bundle list --json"))
@json_option
def bundle_list(as_json: bool) -> None:
    """List the published bundle versions."""
    with gateway() as client:
        found = client.bundles()
    if as_json:
        print_json(found)
        return
    print_table(
        ["bundle", "version", "kind", "files", "size", "published", "by", "title"],
        [
            (
                each.name,
                each.version,
                each.content,
                each.files,
                size(each.size),
                instant(each.received_ms),
                each.put_by,
                each.title,
            )
            for each in found
        ],
        empty="no bundles yet: digitruck bundle push DIR --name NAME --version V --key KEY",
    )


@bundle.command(
    "show",
    epilog=examples(
        "digitruck bundle show maths",
        "digitruck bundle show maths@2026.11 --files",
        "digitruck bundle show maths --json",
    ),
)
@click.argument("bundle", metavar="BUNDLE[@VERSION]")
@click.option("--files", is_flag=True, help="List the files, too.")
@json_option
def bundle_show(bundle: str, files: bool, as_json: bool) -> None:
    """Show a version of a bundle, the newest if none is named."""
    with gateway() as client:
        found = find_bundle(client, bundle)
        detail = client.bundle(found.name, found.version)
        items: list[BundleFile] = list(detail.items)
        after = detail.next if files or as_json else None
        while after is not None:
            page = client.bundle(found.name, found.version, after=after)
            items, after = items + page.items, page.next
    if as_json:
        print_json({"bundle": found, "missing_files": detail.missing_files, "items": items})
        return
    print_fields(
        [
            ("bundle", f"{found.name} {found.version}"),
            ("title", found.title or None),
            ("kind", found.content),
            ("content", f"{found.files} files, {size(found.size)}"),
            ("manifest", found.manifest),
            ("published", f"{instant(found.received_ms)} by {found.put_by}"),
            ("still to be sent", f"{detail.missing_files} files, {size(detail.missing_bytes)}"),
        ]
    )
    if files:
        say()
        print_table(["file", "bytes", "here"], [(each.path, each.size, each.here) for each in items], empty="no files")


def _scanned(folder: Path) -> publishing.Source:
    with progress_bar("reading") as progress:
        return publishing.scan(folder, progress)


def _note_source(manifest: Manifest, source: publishing.Source) -> None:
    distinct = source.blobs()
    note(
        f"{manifest.name} {manifest.label}: {len(source.files)} files, {size(source.size)}; "
        f"{len(distinct)} distinct contents, {size(sum(each.size for each in distinct.values()))}"
    )


def _say_pushed(pushed: publishing.Pushed, manifest: Manifest, distinct: int) -> None:
    say(f"Manifest {pushed.digest}")
    say(f"Sent {pushed.sent_files} of {distinct} contents, {size(pushed.sent_bytes)} of {size(pushed.size)}.")
    say(f"Next: digitruck rollout create {manifest.name}@{manifest.label} --trucks T,.. --key OPERATOR")


def _push_signed(folder: Path, file: Path) -> None:
    load_session()
    source = _scanned(folder)
    manifest, signed = read_signed_manifest(file, source)
    _note_source(manifest, source)
    with gateway() as client:
        held = held_of(client, [each for each in client.bundles() if each.name == manifest.name])
        with progress_bar("sending") as progress:
            pushed = client.run(publishing.push(client.client, source, signed, held=held, progress=progress))
    _say_pushed(pushed, manifest, len(source.blobs()))


def _predict(source: publishing.Source, manifest: Manifest) -> None:
    """Say what an edition would take of each truck, where somebody is signed in."""
    try:
        load_session()
    except CommandError:
        note("Sign in (digitruck login) to see what it would take of each truck.")
        return
    with gateway() as client, progress_bar("packing") as progress:
        predictions = predict(client, source, manifest, progress=progress)
    show(predictions)


def find_bundle(client: SyncClient, text: str) -> Bundle:
    """Return a published bundle by `NAME` (its newest version) or `NAME@VERSION`; raise `CommandError`."""
    name, at, label = text.partition("@")
    versions = [each for each in client.bundles() if each.name == name]
    if not versions:
        raise CommandError(f"no bundle {name!r} was published: see digitruck bundle list")
    if not at:
        return max(versions, key=lambda each: each.number)
    for each in versions:
        if each.version == label:
            return each
    known = ", ".join(each.version for each in versions)
    raise CommandError(f"{name} has no version {label!r} (it has {known}): see digitruck bundle list")


def _signed_before(client: SyncClient, found: Bundle, wanted: Manifest) -> bytes:
    """Return the signed manifest that a version was published under; raise `CommandError` if it says something else."""
    signed = client.document(found.manifest)
    before = read_believed(signed, Manifest, found.manifest)
    if (before.files, before.content, before.title) != (wanted.files, wanted.content, wanted.title):
        raise CommandError(f"{found.name} {found.version} was published with other content: choose another --version")
    return signed


def _issued_s() -> int:
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(text) if text.isdigit() else now_s()


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[publishing.Progress]:
    """Show a bar on a terminal's standard error; yield what to tell (bytes done, bytes in all)."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(file=sys.stderr)
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not sys.stderr.isatty()) as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
