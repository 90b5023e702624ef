"""The claims of the literature, re-run with controls: `python -m evidence`, or `make evidence`."""
