"""Whether a teacher spread over processes answers as it does in one.

Run: ``python -m benchmarks.spread --teacher runs/teacher [--tensor 2] [--pipeline 2] [--gpu]``. The prompts of 24
histories of a data set are answered by an engine of one process and by one of ``tensor × pipeline`` processes, one
after the other; the model needs a layer for every stage of the pipeline.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import ray

from cluster.config import ClusterConfig
from cluster.ray_session import ray_session
from data_prep.reading import read_rows, read_titles, shards
from teacher_infer.config import VllmConfig

HISTORIES, NEW_TOKENS = 24, 32


def main() -> None:
    """Ask both engines and print what they share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, default=Path("runs/dataset"))
    parser.add_argument("--teacher", type=Path, default=Path("runs/teacher"))
    parser.add_argument("--tensor", type=int, default=2)
    parser.add_argument("--pipeline", type=int, default=1)
    parser.add_argument("--gpu", action="store_true")
    asked = parser.parse_args()
    titles = read_titles(asked.dataset)
    rows = read_rows(shards(asked.dataset, "test")[0]).slice(0, HISTORIES)
    histories = [[titles[item] for item in history] for history in rows["history"].to_pylist()]
    targets = [titles[item] for item in rows["target"].to_pylist()]
    one = VllmConfig()
    spread = one.model_copy(
        update={"tensor_parallel_size": asked.tensor, "pipeline_parallel_size": asked.pipeline},
    )
    with ray_session(ClusterConfig()):
        texts, logprobs = _answers(asked.teacher, one, int(asked.gpu), histories, targets)
        spread_texts, spread_logprobs = _answers(
            asked.teacher, spread, asked.gpu * asked.tensor * asked.pipeline, histories, targets
        )
    same = np.mean([text == other for text, other in zip(texts, spread_texts, strict=True)])
    print(
        json.dumps(
            {
                "spread_processes": asked.tensor * asked.pipeline,
                "spread_same_texts": float(same),
                "spread_largest_logprob_difference": float(np.abs(logprobs - spread_logprobs).max()),
            }
        )
    )


def _answers(
    teacher: Path, config: VllmConfig, gpus: int, histories: list[list[str]], targets: list[str]
) -> tuple[Any, Any]:
    """Generated texts, and the log-probability of every token of the true titles."""

    @ray.remote(num_cpus=1, num_gpus=gpus, max_calls=1)
    def answers() -> tuple[list[str], np.ndarray]:
        from teacher_infer.engine import VllmEngine

        engine = VllmEngine(teacher.absolute(), "generate", config, gpus > 0)
        texts = [answer.text for answer in engine.generate(histories, NEW_TOKENS)]
        paths = engine.title_tokens(targets)
        prompts = engine.prompts(histories, max(map(len, paths)) + 1)
        logprobs = engine.path_logprobs([prompt.tokens for prompt in prompts], paths)
        engine.close()
        return texts, np.concatenate([path.values for path in logprobs])

    return ray.get(answers.remote())


if __name__ == "__main__":
    main()
