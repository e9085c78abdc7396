"""Bearer tokens of the HTTP API: only their SHA-256 is kept. A token's secret is random, so a plain hash suffices."""

from __future__ import annotations

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from store.fleet import audit
from store.fleet.database import FleetPart
from store.fleet.errors import TokenNameError
from store.fleet.records import TokenRecord
from store.fleet.tables import tokens


class Tokens(FleetPart):
    """Tokens by hash and by name."""

    async def put_token(
        self,
        token_sha256: bytes,
        name: str,
        role: str,
        created_ms: int,
        expires_ms: int | None = None,
        *,
        put_by: str = audit.GATEWAY_ACTOR,
    ) -> None:
        """Keep a token; raise `TokenNameError` if one of this name, revoked or not, exists."""
        values = {
            "token_sha256": token_sha256,
            "name": name,
            "role": role,
            "created_ms": created_ms,
            "expires_ms": expires_ms,
        }
        entry = audit.note(put_by, "token.created", name, created_ms, {"role": role, "expires_ms": expires_ms})
        try:
            async with self._database.write() as transaction:
                await transaction.execute(insert(tokens).values(values))
                await audit.append(self._database, transaction, entry)
        except IntegrityError as error:
            raise TokenNameError(f"a token named {name} exists already: choose another name") from error

    async def token(self, token_sha256: bytes) -> TokenRecord | None:
        """Return a token, also a revoked or expired one: ask `usable`."""
        query = select(tokens).where(tokens.c.token_sha256 == token_sha256)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return None if row is None else TokenRecord(**row)

    async def tokens(self) -> list[TokenRecord]:
        """Return every token, by name."""
        async with self._database.read() as connection:
            found = await connection.execute(select(tokens).order_by(tokens.c.name))
            return [TokenRecord(**row) for row in found.mappings()]

    async def forget_tokens(self, prefix: str, before_ms: int) -> None:
        """Forget the tokens whose name begins with `prefix` and that expired before a time."""
        gone = delete(tokens).where(tokens.c.name.startswith(prefix, autoescape=True), tokens.c.expires_ms < before_ms)
        async with self._database.write() as transaction:
            await transaction.execute(gone)

    async def revoke_token(self, name: str, now_ms: int, *, revoked_by: str = audit.GATEWAY_ACTOR) -> bool:
        """Revoke a token; return False if there is none of this name that is not revoked."""
        async with self._database.write() as transaction:
            revoked = await transaction.execute(
                update(tokens).where(tokens.c.name == name, tokens.c.revoked_ms.is_(None)).values(revoked_ms=now_ms)
            )
            if revoked.rowcount == 0:
                return False
            await audit.append(self._database, transaction, audit.note(revoked_by, "token.revoked", name, now_ms))
            return True
