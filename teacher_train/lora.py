"""LoRA: low-rank adapters on a frozen causal LM, kept apart or merged into its weights (PEFT)."""

import shutil
from pathlib import Path
from typing import Any

import peft
from torch import Tensor

from cluster.errors import ConfigError
from teacher_infer.locate import ADAPTER_FOLDER
from teacher_train.config import LoraConfig


def add_adapter(lm: Any, config: LoraConfig) -> Any:  # noqa: ANN401  # PreTrainedModel to PeftModel
    """Freeze ``lm`` and give it adapters, which leave its output as it is until they are trained.

    Raises:
        ConfigError: the model has no module of a name in ``target_modules``.
    """
    modules = config.target_modules
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="all-linear" if modules == ("all-linear",) else list(modules),
        task_type=peft.TaskType.CAUSAL_LM,
    )
    try:
        return peft.get_peft_model(lm, settings)
    except ValueError as error:
        raise ConfigError(f"--lora.target-modules {' '.join(modules)}: {' '.join(str(error).split())[:200]}") from error


def write_adapter(lm: Any, weights: dict[str, Tensor], directory: Path) -> None:  # noqa: ANN401
    """Write the adapters of ``lm`` with the values in ``weights`` to ``adapter`` in a teacher's directory."""
    # Embeddings are never trained here; "auto" would ask a model hub about them.
    lm.save_pretrained(directory / ADAPTER_FOLDER, state_dict=weights, save_embedding_layers=False)


def merge_adapter(lm: Any, directory: Path) -> None:  # noqa: ANN401
    """Replace the adapters in a teacher's directory by the weights of ``lm``, their base model, with them added."""
    merged = peft.PeftModel.from_pretrained(lm, directory / ADAPTER_FOLDER).merge_and_unload()
    merged.save_pretrained(directory)
    shutil.rmtree(directory / ADAPTER_FOLDER)
