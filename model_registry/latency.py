"""How long a student takes for one request."""

import time

import numpy as np

from student_serve.recommender import Recommender

WARM_UP = 50


def request_latency(recommender: Recommender, requests: int = 1000, k: int = 10) -> tuple[float, float]:
    """Median and 99th percentile, in milliseconds, of single requests with full random histories on one thread."""
    generator = np.random.default_rng(0)
    seconds = []
    for items in generator.integers(recommender.n_items, size=(WARM_UP + requests, recommender.length)):
        history = [recommender.titles[item] for item in items]
        started = time.perf_counter()
        recommender.recommend([history], k)
        seconds.append(time.perf_counter() - started)
    median, high = np.quantile(seconds[WARM_UP:], [0.5, 0.99]) * 1000
    return float(median), float(high)
