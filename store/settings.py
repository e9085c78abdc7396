"""Settings: small values that outlive a restart, such as the clock floor, the boot counter and where keys lie."""

from __future__ import annotations

from store.database import Database

_INT_BYTES = 8


class Settings:
    """Named byte strings and integers (signed, 64 bits)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> bytes | None:
        """Return a value, or None when it was never set."""
        value: bytes | None = self._database.value("SELECT value FROM settings WHERE name = :name", {"name": name})
        return value

    def put(self, name: str, value: bytes) -> None:
        """Set a value."""
        self._database.insert("settings", {"name": name, "value": value}, conflict="REPLACE")

    def remove(self, name: str) -> None:
        """Forget a value."""
        self._database.delete("settings", "name = :name", {"name": name})

    def get_int(self, name: str, default: int = 0) -> int:
        """Return an integer, or `default` when it was never set."""
        value = self.get(name)
        return default if value is None else int.from_bytes(value, "big", signed=True)

    def put_int(self, name: str, value: int) -> None:
        """Set an integer."""
        self.put(name, value.to_bytes(_INT_BYTES, "big", signed=True))

    def raise_int(self, name: str, value: int) -> int:
        """Set an integer unless it would fall (the clock floor never does); return what holds now."""
        with self._database.atomic():
            highest = max(value, self.get_int(name, value))
            self.put_int(name, highest)
        return highest

    def count(self, name: str) -> int:
        """Add one and return the new number (1 the first time): boot ids are such numbers."""
        with self._database.atomic():
            number = self.get_int(name) + 1
            self.put_int(name, number)
        return number
