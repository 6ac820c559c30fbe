"""Rewriting: module in, new module out.

What may be changed here: how the same numbers are computed, in less time or memory or whatever the padding.
"""
