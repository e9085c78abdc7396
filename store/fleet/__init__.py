"""The gateway's data layer: SQLAlchemy Core on SQLite or PostgreSQL, one contract for both."""
