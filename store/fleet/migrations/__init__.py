"""Alembic's environment and the revisions of the fleet's database; `store.fleet.migration` runs them."""
