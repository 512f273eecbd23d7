"""``python -m pushforward``."""

from pushforward.cli import program

program()
