"""Two-stage search: the first results looked at again by their local features."""
