"""The error that a user sees: one sentence, no traceback on the command line."""

from __future__ import annotations

__all__ = ["FcosError"]


class FcosError(ValueError):
    """Something in the user's input is wrong; the message names the file, key or value and what to do about it."""
