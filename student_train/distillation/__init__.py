"""What a student takes from a teacher: importance-aware rankings and collaborative embeddings."""
