"""Ways to rank: a file each."""
