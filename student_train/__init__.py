"""Students, their distillation, evaluation and export."""
