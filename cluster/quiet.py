"""Set-up of every Ray worker process; imports nothing heavy, for each actor runs it."""

import logging
import os

import ray


def quiet_worker() -> None:
    """Keep Ray's and DeepSpeed's own chatter out of a worker's log, which the user reads for progress."""
    for name in ("ray.train", "ray.data", "DeepSpeed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It asks the dashboard, which a local Ray does without.
    logging.getLogger("ray.train.v2._internal.execution.controller.placement_group_cleaner").setLevel(logging.ERROR)
    # It would search this machine for "the" Ray otherwise, and fail where two are at work.
    os.environ.setdefault("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
