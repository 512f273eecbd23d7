"""The store: models, scored events, feedback, monitors, alerts and the audit chain, in SQLite or PostgreSQL."""

from pushforward.service.store.database import Store

__all__ = ["Store"]
