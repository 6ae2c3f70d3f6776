"""Where models, losses and strategies stand, by the names that configs use: a line here and a file each.

Configs read the names without importing what they stand for.
"""

BACKBONES = {
    "gru4rec": "student_train.models.gru4rec:GRU4Rec",
    "caser": "student_train.models.caser:Caser",
    "sasrec": "student_train.models.sasrec:SASRec",
    "dros": "student_train.models.sasrec:SASRec",
    "hstu": "student_train.models.hstu:HSTU",
}
LOSSES = {
    "softmax": "student_train.losses.softmax:Softmax",
    "sampled_softmax": "student_train.losses.sampled_softmax:SampledSoftmax",
    "bce": "student_train.losses.bce:BCE",
    "gbce": "student_train.losses.gbce:GBCE",
}
RESPONSE_BASED = {
    "soft": "student_train.distillation.soft:soft",
    "dllm2rec": "student_train.distillation.dllm2rec:dllm2rec",
    "dllm2rec-official": "student_train.distillation.official:dllm2rec_official",
    "rd": "student_train.distillation.baselines.rd:rd",
    "cd": "student_train.distillation.baselines.cd:cd",
    "rrd": "student_train.distillation.baselines.rrd:rrd",
    "dcd": "student_train.distillation.baselines.dcd:dcd",
    "unkd": "student_train.distillation.baselines.unkd:unkd",
}
"""Strategies that compare rankings: functions of a :class:`student_train.distillation.base.DistillationBatch`."""
FEATURE_BASED = {
    "hint": "student_train.distillation.baselines.hint:Hint",
    "htd": "student_train.distillation.baselines.htd:HTD",
}
"""Strategies that compare item embeddings: modules trained with the student."""
STRATEGIES = RESPONSE_BASED | FEATURE_BASED
