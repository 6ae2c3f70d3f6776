"""Work of the pool, done once: the catalogue in tokens, as files that all workers map into memory.

The files are the trie of titles and the length of the longest prompt with its answer, which engines are made for.
"""

from pathlib import Path

import numpy as np

from cluster.files import local_copy, read_parquet, write_json
from data_prep.reading import read_titles, shards
from data_prep.schema import Split
from teacher_infer.job import LONGEST_FILE, Engines, Job
from teacher_infer.prompts import prompt
from teacher_infer.title_tokens import own_length, title_tokens
from teacher_infer.trie import TitleTrie

SPARE = 16  # tokens by which neighbours may be read otherwise than titles alone


class ReadCatalogue:
    """Reads titles with the teacher's tokenizer; the one shard of this work is the catalogue."""

    def __init__(self, job: Job, engines: Engines) -> None:
        self._job = job

    def do(self, _: int) -> int:
        """Write the files; gives the longest sequence."""
        from transformers import AutoTokenizer

        config, folder = self._job.config, self._job.catalogue
        model, titles = local_copy(self._job.model), read_titles(config.dataset)
        tokenizer = AutoTokenizer.from_pretrained(model)
        tokens = title_tokens(tokenizer, titles, (config.vllm.max_model_len or own_length(model)) // 2)
        trie = TitleTrie(tokens)
        lengths_N = np.fromiter(map(len, tokens), np.int64)
        frame = len(tokenizer(prompt([""]))["input_ids"])
        longest = frame + max(_longest_history(config.dataset, split, lengths_N) for split in config.splits)
        longest += max(trie.longest, config.max_new_tokens) + SPARE
        self._job.store.check_fence()
        trie.save(folder)
        write_json(folder / LONGEST_FILE, longest)
        return longest


def _longest_history(dataset: Path, split: Split, lengths_N: np.ndarray) -> int:
    """Tokens of the longest history of titles; a quoted title with its comma has at most as many as an answer has."""
    longest = 0
    for file in shards(dataset, split):
        histories = read_parquet(file, ["history"])["history"].combine_chunks()
        if len(histories):
            starts = histories.offsets.to_numpy()
            tokens = np.concatenate([[0], np.cumsum(lengths_N[histories.values.to_numpy()])])
            longest = max(longest, int((tokens[starts[1:]] - tokens[starts[:-1]]).max()))
    return longest
