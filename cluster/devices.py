"""The one place that decides which GPUs a worker's process sees."""

import os


def see_gpus(asked: float) -> None:
    """Hide the machine's GPUs from this process if its job asks for none: Ray leaves them visible.

    To be called before CUDA is first used; what a worker with GPUs sees is Ray's choice.
    """
    if not asked:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
