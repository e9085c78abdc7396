"""`digitruck usb`: couriers' sticks, written here for trucks, brought back here, and revoked when they are lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from gateway.cli.bundles import progress_bar
from gateway.cli.output import (
    CommandError,
    examples,
    instant,
    json_option,
    note,
    print_json,
    print_table,
    say,
    size,
)
from gateway.cli.session import gateway
from gateway.cli.times import duration
from gateway.client import ApiError, SyncClient
from gateway.contentanswers import Carried, StickPlan
from gateway.stickwriting import Progress, gather, write
from protocol.documents import Stick, parse_document
from protocol.errors import PeerError
from protocol.numbers import STICK_BYTES_MAX
from store.stickfolder import STICK, UPLOAD_BYTES_MAX, StickFolder

_path = click.argument("path", metavar="PATH", type=click.Path(file_okay=False, path_type=Path))


@click.group(
    epilog=examples(
        "digitruck usb export /media/stick --trucks ke-arrow,tz-arrow",
        "digitruck usb import /media/stick",
        "digitruck usb list",
        "digitruck usb revoke 3f9a6c0e5d2b417e8a90b1c2d3e4f506",
    )
)
def usb() -> None:
    """By courier: documents and content to trucks on a stick, telemetry and receipts back."""


@usb.command(
    "export",
    epilog=examples(
        "digitruck usb export /media/stick --trucks ke-arrow,tz-arrow",
        "digitruck usb export /media/stick --group kenya --sealed",
        "digitruck usb export ./depot --trucks ke-arrow --bundle maths --whole",
    ),
)
@_path
@click.option("--trucks", metavar="T,..", help="For these trucks.")
@click.option("--group", help="For all trucks of this group.")
@click.option("--bundle", "bundles", multiple=True, metavar="NAME", help="Only this bundle's files; repeatable.")
@click.option("--whole", is_flag=True, help="Also files that the trucks hold already, by their receipts.")
@click.option("--packs", is_flag=True, help="What the trucks are fetching goes as the same packs: a smaller stick.")
@click.option("--sealed", is_flag=True, help="Encrypt it: only these trucks can read what is on it.")
@click.option("--valid", type=duration, default="90d", show_default=True, help="How long trucks take it.")
@click.option("--new", is_flag=True, help="Plan another stick, also if this one could be gone on with.")
@json_option
def usb_export(
    path: Path,
    trucks: str | None,
    group: str | None,
    bundles: tuple[str, ...],
    whole: bool,
    packs: bool,
    sealed: bool,
    valid: int,
    new: bool,
    as_json: bool,
) -> None:
    """Write what trucks should have to the stick (or folder) at PATH: documents, files, what the gateway has of them.

    No key is needed: everything on it is signed already. What the stick holds is not written again, so an export that
    broke off goes on; the same stick can be used over and over. A truck takes it with `digitruck-edge usb import`.
    """
    if (trucks is None) == (group is None):
        raise click.UsageError("name either --trucks or a --group")
    folder = StickFolder(path)
    folder.create()
    with gateway() as client:
        if trucks is not None:
            names = sorted({each.strip() for each in trucks.split(",") if each.strip()})
        else:
            names = [each.truck for each in client.trucks(group=group) if each.revoked_ms is None]
        if not names:
            raise CommandError("no trucks: see digitruck trucks")
        plan = None if new or packs else _plan_on(client, folder, names, sealed=sealed)
        if plan is None:
            plan = client.create_stick(names, sealed=sealed, packs=packs, expires_in_s=valid)
        contents = gather(client, plan, whole=whole, bundles=frozenset(bundles))
        note(
            f"Stick {plan.stick} for {', '.join(names)}: {size(contents.size)}"
            + (f" ({', '.join(contents.bundles)})" if contents.bundles else ", documents only")
        )
        with _bar("writing") as progress:
            written = write(client, folder, plan, contents, progress)
    if as_json:
        about = {"stick": plan.stick, "trucks": names, "sealed": plan.sealed, "expires_ms": plan.expires_ms}
        print_json(about | {"objects": len(contents.items), "bytes": contents.size, "written_bytes": written})
        return
    say(f"Wrote {size(written)} ({len(contents.items)} objects are on it). Unmount it before you pull it out.")
    say(f"At the truck: digitruck-edge usb import {path}. If it gets lost: digitruck usb revoke {plan.stick}")


@usb.command(
    "import", epilog=examples("digitruck usb import /media/stick", "digitruck usb import /media/stick --keep --json")
)
@_path
@click.option("--keep", is_flag=True, help="Leave the trucks' files on the stick.")
@json_option
def usb_import(path: Path, keep: bool, as_json: bool) -> None:
    """Bring in what trucks gave the courier: telemetry, events and receipts, signed by each truck.

    A file goes from the stick once the gateway has committed it; the truck keeps its own until it hears that, over any
    link or by the next stick. Doing it twice changes nothing.
    """
    folder = StickFolder(path)
    folder.require()
    signed = folder.read(STICK, STICK_BYTES_MAX)
    stick = None
    if signed is not None:
        with contextlib.suppress(PeerError):  # whatever it is, each file of a truck stands for itself
            stick = parse_document(signed, Stick)[0].stick.hex()
    taken: list[Carried] = []
    failed = 0
    with gateway() as client, _bar("bringing in") as progress:
        found = folder.uploads()
        for number, (_, name) in enumerate(found):
            progress(number, len(found))
            try:
                data = folder.read(name, UPLOAD_BYTES_MAX)
                taken.append(client.take_carried(data or b"", stick=stick))
            except ApiError as error:
                if error.status != 422:
                    raise
                failed += 1
                note(f"{name}: {error}; the truck still has it")
                continue
            except PeerError as error:
                failed += 1
                note(f"{name}: {error}; the truck still has it")
                continue
            if not keep:
                folder.remove(name)
    if as_json:
        print_json({"stick": stick, "files": taken, "failed": failed})
    else:
        _say_taken(taken)
    if failed:
        raise CommandError(f"{failed} of {len(found)} files were not taken: what is above says why")


@usb.command("list", epilog=examples("digitruck usb list", "digitruck usb list --json"))
@json_option
def usb_list(as_json: bool) -> None:
    """List the sticks that were planned, newest first."""
    with gateway() as client:
        found = client.sticks()
    if as_json:
        print_json(found)
        return
    print_table(
        ["stick", "trucks", "sealed", "made", "by", "until", "came back", "revoked"],
        [
            (
                each.stick,
                ", ".join(each.trucks[:4]) + (" ..." if len(each.trucks) > 4 else ""),
                each.sealed,
                instant(each.made_ms),
                each.made_by,
                instant(each.expires_ms),
                instant(each.imported_ms),
                instant(each.revoked_ms),
            )
            for each in found
        ],
        empty="no sticks yet: digitruck usb export PATH --trucks T,..",
    )


@usb.command("revoke", epilog=examples("digitruck usb revoke 3f9a6c0e5d2b417e8a90b1c2d3e4f506"))
@click.argument("stick")
@json_option
def usb_revoke(stick: str, as_json: bool) -> None:
    """Revoke a stick that was lost: nothing is taken from it any more, here or by a truck that heard of it."""
    with gateway() as client:
        found = client.revoke_stick(stick)
    if as_json:
        print_json(found)
        return
    say(f"Stick {found.stick} is revoked. Trucks hear of it with their next contact, or by another stick.")


def _plan_on(client: SyncClient, folder: StickFolder, trucks: list[str], *, sealed: bool) -> StickPlan | None:
    """Return the plan that the stick holds already, if it is still the right one for these trucks."""
    try:
        signed = folder.read(STICK, STICK_BYTES_MAX)
        if signed is None:
            return None
        document, _ = parse_document(signed, Stick)
        plan = client.stick(document.stick.hex())
    except ApiError as error:
        if "revoked" in str(error):
            raise CommandError(f"{error}, or use --new to write another one on it") from error
        return None
    except PeerError:
        return None
    # What the gateway has of the trucks changes with each import: an older stick tells less of it.
    fresh = plan.imported_ms is None
    return plan if fresh and (plan.trucks, plan.sealed) == (trucks, sealed) else None


def _say_taken(taken: list[Carried]) -> None:
    if not taken:
        say("No truck gave this stick anything yet: digitruck-edge usb export PATH, at the truck.")
    for truck in sorted({each.truck for each in taken}):
        mine = [each for each in taken if each.truck == truck]
        new, known, refused = (sum(getattr(each, name) for each in mine) for name in ("new", "known", "refused"))
        said = f"{truck}: {new} parcels are new, {known} were here already"
        say(said + (f", {refused} were refused (digitruck events {truck})" if refused else ""))


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Progress]:
    with progress_bar(title) as progress:
        yield progress
