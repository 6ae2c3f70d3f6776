"""The whole road on synthetic data, with its report."""
