"""Benchmarks: each runs by itself, prints a table and ends with one JSON line of its figures."""
