"""Binary weights as four-bit integers: torch's own kernel multiplies them in bfloat16, and no compiler is needed."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mofme.core.binary.layers import BinaryLinear
from mofme.core.binary.sign import sign

_GROUP = 32  # inputs that share a scale and a zero
_MULTIPLE = 16  # of outputs
_ZERO = 8  # the integer that stands for 0


class Int4Linear(nn.Module):
    """(..., D) -> (..., F) float32, computed in bfloat16 from weights of half a byte."""

    weight: Tensor
    scale_and_zero: Tensor

    def __init__(self, layer: BinaryLinear) -> None:
        super().__init__()
        self.inputs, self.outputs = layer.in_features, layer.out_features
        inputs, outputs = -self.inputs % _GROUP, -self.outputs % _MULTIPLE
        integers = F.pad(sign(layer.weight.detach()).int() + _ZERO, (0, inputs, 0, outputs), value=_ZERO)
        groups = (self.inputs + inputs) // _GROUP
        steps = torch.zeros(groups, self.outputs + outputs, 2, dtype=torch.bfloat16)
        steps[..., 0] = 1
        self.register_buffer("weight", torch.ops.aten._convert_weight_to_int4pack_for_cpu(integers, 1))
        self.register_buffer("scale_and_zero", steps)
        self.scale, self.bias = layer.scale, layer.bias
        self._padding = inputs

    def forward(self, x: Tensor) -> Tensor:
        rows = F.pad(x.reshape(-1, self.inputs).bfloat16(), (0, self._padding))
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.weight, _GROUP, self.scale_and_zero)
        y = y[:, : self.outputs].float()
        if self.scale is not None:
            y = y * self.scale
        if self.bias is not None:
            y = y + self.bias
        return y.view(*x.shape[:-1], self.outputs)


def as_int4(model: nn.Sequential) -> nn.Sequential:
    """The same net for inference on a CPU, its binary linear layers from four-bit integers."""
    return nn.Sequential(*[Int4Linear(layer) if isinstance(layer, BinaryLinear) else layer for layer in model])
