"""The student: an item table, a backbone, scores over the catalogue. What is exported and served."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from student_train.config import ModelConfig
from student_train.models import backbone

INITIAL_SCALE = 0.02

Part = Callable[[Tensor | None], Tensor]
"""What is added to the embeddings of items: [..., D] for item indices [...], [N, D] for none."""


class Student(nn.Module):
    """A sequential recommender."""

    def __init__(self, model: ModelConfig, n_items: int) -> None:
        super().__init__()
        self.n_items = n_items
        self.items = nn.Embedding(n_items + 1, model.hidden_size, padding_idx=n_items)
        self.backbone = backbone(model.name)(model)
        self.output = nn.Embedding(n_items, model.hidden_size) if model.output == "separate" else None
        self.bias = nn.Parameter(torch.zeros(n_items))
        # Learned from the data: whether what was taken once is taken again.
        self.repeat = nn.Parameter(torch.zeros(1))
        for table in (self.items, self.output):
            if table is not None:
                nn.init.normal_(table.weight, std=INITIAL_SCALE)
        with torch.no_grad():
            self.items.weight[n_items].zero_()

    def forward(
        self,
        history_BL: Tensor,
        items_BM: Tensor | None = None,
        input_part: Part | None = None,
        output_part: Part | None = None,
    ) -> Tensor:
        """Scores of items as the next one.

        Args:
            history_BL: item indices, newest last, padded on the left with N.
            items_BM: items to score; none scores the whole catalogue.
            input_part: added to the embeddings of the history.
            output_part: added to the embeddings of the items scored.

        Returns:
            Logits [B, M] or [B, N].
        """
        embedded_BLD = self.items(history_BL)
        if input_part is not None:
            embedded_BLD = embedded_BLD + input_part(history_BL)
        states_BD = self.backbone(embedded_BLD, history_BL != self.n_items)
        table_ND = self.output.weight if self.output is not None else self.items.weight[:-1]
        scored = table_ND if items_BM is None else functional.embedding(items_BM, table_ND)
        if output_part is not None:
            scored = scored + output_part(items_BM)
        known_BL = history_BL != self.n_items
        if items_BM is None:
            scores_BN = functional.linear(states_BD, scored, self.bias)
            return scores_BN.scatter_add(1, history_BL.where(known_BL, 0), self.repeat * known_BL)
        scores_BM = (scored @ states_BD[:, :, None]).squeeze(2) + self.bias[items_BM]
        return scores_BM + self.repeat * (items_BM[:, :, None] == history_BL[:, None, :]).sum(2)
