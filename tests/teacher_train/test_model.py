import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from cluster.errors import ConfigError, StaleInputError
from teacher_train.config import ModelConfig, TrainTeacherConfig
from teacher_train.examples import IGNORED, Example, collate
from teacher_train.model import ResponseLoss, check_model, open_model, write_start, write_weights

SMALL = ModelConfig(layers=2, width=64, heads=2, vocabulary=512)


@pytest.fixture
def started(tiny_dataset, tmp_path):
    config = TrainTeacherConfig(dataset=tiny_dataset, model=SMALL, max_tokens=128)
    write_start(config, tmp_path)
    torch.manual_seed(0)
    return tmp_path, open_model(None, tmp_path).eval()


def examples():
    return [Example([0, 5, 6, 7, 1], [IGNORED, IGNORED, IGNORED, 7, 1]), Example([0, 9, 1], [IGNORED, 9, 1])]


@pytest.mark.parametrize(("width", "heads"), [(128, 8), (100, 3), (256, 2)])
def test_head_sizes_that_vllm_does_not_serve_are_refused(width, heads):
    with pytest.raises(ConfigError, match="serves 32 and 64"):
        check_model(TrainTeacherConfig(model=ModelConfig(width=width, heads=heads)))


def test_a_missing_model_to_start_from_is_refused(tmp_path):
    with pytest.raises(StaleInputError, match=r"--start-from.*config\.json"):
        check_model(TrainTeacherConfig(start_from=tmp_path))


def test_loss_is_the_mean_over_labelled_tokens(started):
    _, lm = started
    losses = []
    for example in examples():
        logits = lm(torch.tensor([example.tokens])).logits[0, :-1]
        losses += functional.cross_entropy(
            logits, torch.tensor(example.labels[1:]), ignore_index=IGNORED, reduction="none"
        )[torch.tensor(example.labels[1:]) != IGNORED].tolist()
    loss = ResponseLoss(lm)(*collate(examples(), padding=2))
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_padding_does_not_change_the_loss(started):
    _, lm = started
    batch = collate(examples(), padding=2)
    longer = [functional.pad(part, (7, 0), value=value) for part, value in zip(batch, (2, IGNORED, 0), strict=True)]
    assert ResponseLoss(lm)(*longer).item() == pytest.approx(ResponseLoss(lm)(*batch).item(), rel=1e-5)


def test_written_weights_load_again(started):
    directory, lm = started
    with torch.no_grad():
        lm.model.norm.weight.fill_(2)
    module = ResponseLoss(lm)
    write_weights(lm, dict(module.named_parameters()), directory)
    loaded = AutoModelForCausalLM.from_pretrained(directory)
    tokens = torch.tensor([[0, 5, 6]])
    torch.testing.assert_close(loaded(tokens).logits, lm(tokens).logits)
