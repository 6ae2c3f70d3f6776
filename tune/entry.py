"""What Ray Tune calls in a trial's process."""

import os
from typing import Any


def start_trial(batch: dict[str, Any], gpus: float, **settings: Any) -> None:  # noqa: ANN401  # those of run_trial
    """Call :func:`tune.trial.run_trial`, imported here, within the trial.

    Ray Tune gives up an actor that is still starting when another one comes free for its trial. One that imported torch
    and DeepSpeed as it starts would be given up again and again where trials are shorter than that.
    """
    if not gpus:
        # Ray leaves those of the machine visible to who asks for none.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from tune.trial import run_trial

    run_trial(batch["members"], **settings)
