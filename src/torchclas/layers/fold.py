"""Batch norms folded into the convolutions before them, for networks that no longer learn."""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from torchclas.layers.conv import ConvNormAct

M = TypeVar("M", bound=nn.Module)


def fold_batch_norms(module: M) -> M:
    """Fold the batch norm of each `ConvNormAct` into its convolution, in place and in evaluation mode.

    Outputs stay the same but for rounding.
    """
    for each in module.modules():
        if isinstance(each, ConvNormAct) and type(each.bn) is nn.BatchNorm2d:
            each.conv = fuse_conv_bn_eval(each.conv.eval(), each.bn.eval())
            each.register_module("bn", nn.Identity())
    return module
