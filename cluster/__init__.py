"""Where work runs and where results live."""
