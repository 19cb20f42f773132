"""The frozen backbone, as devices get it."""

from __future__ import annotations

import torch
from torch import fx, nn


class FrozenBackbone(nn.Sequential):
    """A model from greys of 0 to 255 to embeddings, in two parts.

    The first, a convolution of 1 x 1, turns greys (images x 1 x height x width) into normalised
    channels, as many as the second, the network, takes.

    :param name: the backbone's.
    :param input_size: pixels along each side of the pictures to come.
    """

    def __init__(
        self, normalise: nn.Conv2d, network: nn.Module, name: str, input_size: int
    ) -> None:
        super().__init__(normalise, network)
        self.name = name
        self.input_size = input_size
        self.channels = normalise.out_channels

    @property
    def is_traced(self) -> bool:
        """Whether the network is a graph, which can be rewritten."""
        return isinstance(self[1], fx.GraphModule)

    def example(self, batch_size: int) -> torch.Tensor:
        """Return an empty batch for the second part."""
        return torch.zeros(batch_size, self.channels, self.input_size, self.input_size)
