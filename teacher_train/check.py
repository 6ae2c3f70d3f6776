"""What can be said about a model to train before any work starts, without importing an engine."""

from cluster.errors import ConfigError, StaleInputError
from teacher_infer.locate import ADAPTER_FOLDER
from teacher_train.config import TrainTeacherConfig

HEAD_SIZES = (32, 64)  # what vLLM runs on every device


def check_model(config: TrainTeacherConfig) -> None:
    """Refuse a model that cannot be trained or served, before any work starts.

    Raises:
        ConfigError: the head size is not one that vLLM serves, or there is nothing to adapt.
        StaleInputError: there is no model at ``start_from``.
    """
    model, start = config.model, config.start_from
    if start is not None:
        if not (start / "config.json").is_file():
            raise StaleInputError(f"--start-from {start} holds no model (no config.json): name an HF model directory")
        if (start / ADAPTER_FOLDER).is_dir():
            raise StaleInputError(f"--start-from {start} holds only an adapter: train that one with --lora.merge True")
    elif config.lora.rank:
        raise ConfigError(f"--lora.rank {config.lora.rank} adapts a model that is there: name one with --start-from")
    elif model.hidden_size % model.num_heads or model.hidden_size // model.num_heads not in HEAD_SIZES:
        raise ConfigError(
            f"--model.hidden-size {model.hidden_size} over --model.num-heads {model.num_heads} gives heads of size "
            f"{model.hidden_size / model.num_heads:g}: vLLM serves {' and '.join(map(str, HEAD_SIZES))}"
        )
