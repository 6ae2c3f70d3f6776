"""The complete pipeline on synthetic data, with its report."""
