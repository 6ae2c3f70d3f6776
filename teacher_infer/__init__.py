"""Prompts, vLLM engines, grounding and teacher labels."""
