"""Packages of the npm registry that tests use as peers and judges: installed once into the user's cache folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def installed(package: str, file: str) -> Path:
    """Return a file of `name@version`, installed if it is not there yet; skip without npm."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed (Debian: apt-get install nodejs npm)")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "digitruck-tests"
    folder = cache / package
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=cache))
        (fresh / "package.json").write_text('{"private": true}')
        npm = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", package]
        done = subprocess.run(npm, cwd=fresh, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            shutil.rmtree(fresh)
            pytest.skip(f"npm cannot install {package}: {done.stderr.strip().splitlines()[-1:]}")
        with contextlib.suppress(OSError):  # somebody else was faster
            fresh.rename(folder)
    return folder / "node_modules" / package.partition("@")[0] / file
