"""Models: backbone, aggregator, the place model made of both, and its folder on disk. Nothing is imported here."""
