"""Routes of the page."""

from __future__ import annotations

from fastapi import FastAPI

__all__ = ["add"]


def add(app: FastAPI) -> None:
    """Add the routes."""
