"""A byte-level BPE tokenizer learned from the catalogue's titles."""

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from teacher_infer.prompts import prompt, response

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def learn_tokenizer(titles: Sequence[str], vocabulary: int) -> Any:  # noqa: ANN401  # a PreTrainedTokenizerFast
    """Learn a tokenizer of at most ``vocabulary`` tokens in which every text has a code.

    Texts start with the token <s>; a response ends with </s>.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # A title stands bare where it is embedded and quoted where it is read; prompt words recur with every prompt.
    texts = [text for title in titles for text in (title, prompt([title]) + response(title))]
    tokenizer.train_from_iterator(texts, trainer)
    start = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, start)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, clean_up_tokenization_spaces=False
    )
