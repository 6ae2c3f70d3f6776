"""Training an LLM into a teacher."""
