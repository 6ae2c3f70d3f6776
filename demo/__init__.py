"""The whole pipeline on synthetic data, with its report."""
