"""Scenes searched as a protocol asks: each alone, or all in one joint index."""
