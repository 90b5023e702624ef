"""The command that looks at the first results again: rerank."""
