"""Training: the loop that fine-tuning, distillation and the recovery after pruning share."""

from edgekit.passes.train.evaluation import HeldOut, Score
from edgekit.passes.train.feed import Feed, TrainBatch, TrainData
from edgekit.passes.train.finetune import FineTune, TrainImages, fine_tune
from edgekit.passes.train.loop import Keeping, fit
from edgekit.passes.train.objective import LOSS, Objective, Seen, Supervised
from edgekit.passes.train.options import TrainOptions
from edgekit.passes.train.report import EpochReport, FitReport

__all__ = [
    "LOSS",
    "EpochReport",
    "Feed",
    "FineTune",
    "FitReport",
    "HeldOut",
    "Keeping",
    "Objective",
    "Score",
    "Seen",
    "Supervised",
    "TrainBatch",
    "TrainData",
    "TrainImages",
    "TrainOptions",
    "fine_tune",
    "fit",
]
