"""Where backbones, objectives and strategies stand, by the names that configs use: a line here and a file each.

Configs read the names without importing what they stand for.
"""

from collections.abc import Mapping

from pydantic import AfterValidator

BACKBONES = {
    "gru4rec": "student_train.backbones.gru4rec:GRU4Rec",
    "caser": "student_train.backbones.caser:Caser",
    "sasrec": "student_train.backbones.sasrec:SASRec",
    "dros": "student_train.backbones.sasrec:SASRec",
    "hstu": "student_train.backbones.hstu:HSTU",
}
OBJECTIVES = {
    "softmax": "student_train.objectives.softmax:Softmax",
    "sampled_softmax": "student_train.objectives.sampled_softmax:SampledSoftmax",
    "bce": "student_train.objectives.bce:BCE",
    "gbce": "student_train.objectives.gbce:GBCE",
}
RANKINGS = {
    "soft": "student_train.distillation.soft:soft",
    "dllm2rec": "student_train.distillation.dllm2rec:dllm2rec",
    "dllm2rec-official": "student_train.distillation.official:dllm2rec_official",
    "rd": "student_train.distillation.rd:rd",
    "cd": "student_train.distillation.cd:cd",
    "rrd": "student_train.distillation.rrd:rrd",
    "dcd": "student_train.distillation.dcd:dcd",
    "unkd": "student_train.distillation.unkd:unkd",
}
"""Strategies that compare rankings: functions of a :class:`student_train.distillation.base.Lesson`."""
MATCHINGS = {
    "hint": "student_train.distillation.hint:Hint",
    "htd": "student_train.distillation.htd:HTD",
}
"""Strategies that compare item embeddings: modules trained with the student."""
STRATEGIES = RANKINGS | MATCHINGS


def one_of(registry: Mapping[str, str]) -> AfterValidator:
    """Validator of a config field that names an entry."""

    def check(name: str) -> str:
        if name not in registry:
            raise ValueError(f"should be one of {', '.join(registry)}")
        return name

    return AfterValidator(check)
