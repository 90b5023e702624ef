"""Descriptors that other programs wrote: .npy and .h5 files with names."""
