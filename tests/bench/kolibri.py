"""A real Kolibri imports a bundle of the kind `kolibri` from the disk, called as the truck calls it.

`python -m tests.bench kolibri [VENV]`: VENV is a virtual environment that has Kolibri; without it one is made (300 MB
from the package registry). The channel is made of the fixture that Kolibri's own tests use, with real files.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edge.config import EdgeConfig, KolibriSettings
from edge.fitness import Fitness, UnfitError
from edge.installer import Installer
from gateway.publishing import make_manifest, scan
from protocol import cose
from protocol.documents import Manifest, sign_document
from protocol.numbers import STICK_CHUNK_BYTES

NAME = "kolibri"
VERSION = "0.19.5"

# Runs inside of Kolibri's own environment: its schema, its fixture; each file gets bytes and the name of their MD5.
_MAKE = """
import hashlib, importlib, json, sys
from pathlib import Path
import kolibri.core.content as content
from sqlalchemy import create_engine
folder = Path(sys.argv[1])
schema = importlib.import_module("kolibri.core.content.contentschema.versions.content_schema_5")
data = json.loads((Path(content.__file__).parent / "fixtures" / "5_content_data.json").read_text())
names = {}
for number, each in enumerate(data["content_localfile"]):
    body = f"lesson {number} ".encode() * 20_000
    names[each["id"]] = name = hashlib.md5(body).hexdigest()
    path = folder / "content" / "storage" / name[0] / name[1] / f"{name}.{each['extension']}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    each.update(id=name, file_size=len(body), available=False)
for each in data["content_file"]:
    each["local_file_id"] = names[each["local_file_id"]]
channel = data["content_channelmetadata"][0]["id"]
databases = folder / "content" / "databases"
databases.mkdir(parents=True)
engine = create_engine(f"sqlite:///{databases / (channel + '.sqlite3')}")
schema.Base.metadata.create_all(engine)
with engine.begin() as connection:
    for name, table in schema.Base.metadata.tables.items():
        for row in data.get(name, []):
            connection.execute(table.insert().values({k: v for k, v in row.items() if k in table.columns}))
print(channel)
"""


def run(args: list[str]) -> list[tuple[str, str, str, str]]:
    """Make a channel, install it as a truck does, have Kolibri import it, and look into Kolibri's database."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv = Path(args[0]) if args else _make_venv(folder / "venv")
        home = folder / "home"
        source = folder / "channel"
        source.mkdir()
        environment = os.environ | {"KOLIBRI_HOME": str(home)}
        made = subprocess.run(
            [venv / "bin" / "python", "-c", _MAKE, source], env=environment, capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise SystemExit(f"the channel could not be made: {made.stderr.strip().splitlines()[-1]}")
        channel = made.stdout.split()[-1]
        installer, path, manifest = _installed(source, folder / "truck")
        settings = KolibriSettings(command=(str(venv / "bin" / "kolibri"),), home=str(home))
        fitness = Fitness(EdgeConfig(kolibri=settings))
        began = time.monotonic()
        asyncio.run(fitness.check(manifest, path))
        took_s = time.monotonic() - began
        available, files = _known(home, channel)
        # A channel that is no database: Kolibri ends badly, and the truck goes back.
        broken = path / "content" / "databases" / f"{channel}.sqlite3"
        broken.unlink()
        broken.write_bytes(b"not a database" * 100)
        try:
            asyncio.run(fitness.check(manifest, path))
            refused = "it was taken"
        except UnfitError as unfit:
            refused = str(unfit)[:60]
        assert installer.active_folder("channel") == path
    return [
        (f"Kolibri {VERSION} imports a bundle from disk", f"{took_s:.0f} s", "-", "-"),
        ("files of the channel that it then has", f"{available} of {files}", "-", "all"),
        ("a channel that is no database", refused, "-", "rolled back"),
    ]


def _installed(source: Path, root: Path) -> tuple[Installer, Path, Manifest]:
    found = scan(source)
    manifest = make_manifest(
        found, name="channel", label="1", version=1, issued_s=0, expires_s=1 << 40, content="kolibri", title=""
    )
    installer = Installer(root, bytes_max=1 << 40)
    for listed, file in zip(manifest.files, sorted(found.files, key=lambda each: each.path), strict=True):
        data = file.file.read_bytes()
        chunks = [data[at : at + STICK_CHUNK_BYTES] for at in range(0, len(data), STICK_CHUNK_BYTES)]
        installer.inbox.take(listed, lambda number, chunks=chunks: iter(chunks[number:]), lambda count: None)
    signed = sign_document(manifest, [cose.SigningKey(b"p" * 32)])
    version = installer.install(manifest, signed, None, assumed=tuple(installer.held()))
    installer.try_out("channel", version.digest)
    return installer, version.path, manifest


def _known(home: Path, channel: str) -> tuple[int, int]:
    with sqlite3.connect(f"file:{home / 'db.sqlite3'}?mode=ro", uri=True) as database:
        (names,) = database.execute("SELECT count(*) FROM content_channelmetadata WHERE id = ?", [channel]).fetchone()
        if names != 1:
            raise SystemExit("Kolibri does not know the channel")
        (files,) = database.execute("SELECT count(*) FROM content_localfile").fetchone()
        (available,) = database.execute("SELECT count(*) FROM content_localfile WHERE available").fetchone()
    return int(available), int(files)


def _make_venv(folder: Path) -> Path:
    print(f"making an environment with kolibri {VERSION}: some minutes", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", f"kolibri=={VERSION}"], check=True)
    return folder
