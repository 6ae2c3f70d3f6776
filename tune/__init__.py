"""The search for distillation weights."""
