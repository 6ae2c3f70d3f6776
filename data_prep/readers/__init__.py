"""Readers of raw formats: a file each."""
