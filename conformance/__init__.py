"""What a part of your own must hold to work here: call the check of its kind from your tests.

>>> from conformance import check_model
>>> def test_mine() -> None:
...     check_model("my_package.models:Mine")
"""

from conformance.loss import check_loss
from conformance.model import check_model
from conformance.ranker import check_ranker
from conformance.source import check_source
from conformance.strategy import check_strategy

__all__ = ["check_loss", "check_model", "check_ranker", "check_source", "check_strategy"]
