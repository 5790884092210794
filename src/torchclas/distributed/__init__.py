"""Many machines, by Ray: commands whose rows workers write in parts, and models for data sets of Ray Data."""

from torchclas.distributed.datasets import Predictor, predict

__all__ = ["Predictor", "predict"]
