"""Training: `fit` is in `fitting`; around it what is checked before, fed in, written down and kept. Nothing is imported here."""
