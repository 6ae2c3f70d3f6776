"""Raw logs and titles to sequences, splits and shards."""
