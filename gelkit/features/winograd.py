"""Winograd's minimal filtering: 3 x 3 convolutions with a quarter of the multiplications."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

_OUTPUT_TILE, _INPUT_TILE = 4, 6
_TRANSFORM_OF_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_TRANSFORM_OF_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_TRANSFORM_OF_OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
"""F(4 x 4, 3 x 3) with the points 0, 1, -1, 2 and -2: Lavin and Gray 2016, arXiv:1509.09308,
section 4.3."""

_FEWEST_CHANNELS = 64
"""Below, the transforms cost more than the multiplications that they save."""
_SCRATCH_BYTES = 2**23
_FEWEST_TILES = 64


class WinogradConvolution(nn.Module):
    """A 3 x 3 convolution of stride 1 and padding 1, by matrix products of transformed tiles.

    Computes in float32 what ``convolution`` does, to about 1e-5 of the largest value. Each output
    tile of 4 x 4 comes from an input tile of 6 x 6; the 36 values of transformed tiles are 36
    products of matrices (tiles x channels in) and (channels in x channels out). Tiles are taken in
    portions, so that what lies between the steps stays in the processor's cache.

    :param rectify: apply ReLU to the result.
    """

    def __init__(self, convolution: nn.Conv2d, *, rectify: bool = False) -> None:
        super().__init__()
        kernel = convolution.weight.detach().double()
        transform = torch.tensor(_TRANSFORM_OF_KERNEL, dtype=torch.float64)
        transformed = torch.einsum("ia,kcab,jb->ijck", transform, kernel, transform)
        channels = (convolution.in_channels, convolution.out_channels)
        self._kernel = transformed.reshape(_INPUT_TILE**2, *channels).float().contiguous()
        bias = convolution.bias
        self._bias = torch.zeros(channels[1]) if bias is None else bias.detach().clone()
        self._rectify = rectify
        bytes_of_a_tile = 4 * _INPUT_TILE**2 * sum(channels)
        self._portion = max(_FEWEST_TILES, _SCRATCH_BYTES // bytes_of_a_tile)

    def forward(self, pictures: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """Convolve (images x channels x height x width), in channels-last memory as the result.

        :param added: of the result's shape, added before the rectification.
        """
        count, _, height, width = pictures.shape
        rows, columns = -(-height // _OUTPUT_TILE), -(-width // _OUTPUT_TILE)
        step = max(1, self._portion // (rows * columns))
        padded = _Padded(pictures, step, rows, columns)
        result = pictures.new_empty(
            count, rows * _OUTPUT_TILE, columns * _OUTPUT_TILE, self._kernel.shape[2]
        )
        for first in range(0, count, step):
            images = slice(first, first + step)
            tiles, targets = padded.tiles(pictures[images]), _tiles(result[images])
            for lines in _portions(rows, max(1, self._portion // columns)):
                targets[:, :, :, lines].copy_(self._convolved(tiles[:, :, :, lines], added is None))
            if added is not None:
                inside = result[images, :height, :width]
                inside += added[images].permute(0, 2, 3, 1)
                self._activate(inside)
        return result[:, :height, :width].contiguous().permute(0, 3, 1, 2)

    def _activate(self, values: torch.Tensor) -> torch.Tensor:
        return values.relu_() if self._rectify else values

    def _convolved(self, tiles: torch.Tensor, activate: bool) -> torch.Tensor:
        """Turn tiles (6 x 6 x ... x channels in) into output tiles (4 x 4 x ... x channels out)."""
        channels_in, channels_out = self._kernel.shape[1:]
        forth, back = _transforms()
        transformed = forth @ tiles.reshape(_INPUT_TILE**2, -1)
        products = torch.bmm(transformed.view(_INPUT_TILE**2, -1, channels_in), self._kernel)
        convolved = back @ products.view(_INPUT_TILE**2, -1)
        shape = (_OUTPUT_TILE, _OUTPUT_TILE, *tiles.shape[2:5], channels_out)
        biased = convolved.view(shape).add_(self._bias)
        return self._activate(biased) if activate else biased


def pays(convolution: nn.Conv2d) -> bool:
    """Whether a convolution is one that :class:`WinogradConvolution` computes, and sooner."""
    form = (convolution.kernel_size, convolution.stride, convolution.padding)
    plain = convolution.groups == 1 and convolution.padding_mode == "zeros"
    channels = min(convolution.in_channels, convolution.out_channels)
    return (
        form == ((3, 3), (1, 1), (1, 1))
        and convolution.dilation == (1, 1)
        and plain
        and channels >= _FEWEST_CHANNELS
    )


@cache
def _transforms() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the two-dimensional transforms as matrices on flattened tiles, 36 x 36 and 16 x 36."""
    forth = torch.tensor(_TRANSFORM_OF_INPUT, dtype=torch.float32)
    back = torch.tensor(_TRANSFORM_OF_OUTPUT, dtype=torch.float32)
    return torch.kron(forth, forth), torch.kron(back, back)


class _Padded:
    """Memory for some images with a margin of zeros, used for one part of a batch after another."""

    def __init__(self, pictures: torch.Tensor, count: int, rows: int, columns: int) -> None:
        margin = _INPUT_TILE - _OUTPUT_TILE
        tall, wide = rows * _OUTPUT_TILE + margin, columns * _OUTPUT_TILE + margin
        _, channels, height, width = pictures.shape
        self._memory = pictures.new_zeros(min(count, len(pictures)), tall, wide, channels)
        self._inside = self._memory[:, 1 : height + 1, 1 : width + 1]
        tiles = self._memory.unfold(1, _INPUT_TILE, _OUTPUT_TILE)
        self._tiles = tiles.unfold(2, _INPUT_TILE, _OUTPUT_TILE).permute(4, 5, 0, 1, 2, 3)

    def tiles(self, pictures: torch.Tensor) -> torch.Tensor:
        """View pictures as overlapping tiles, 6 x 6 x images x rows x columns x channels."""
        self._inside[: len(pictures)] = pictures.permute(0, 2, 3, 1)
        return self._tiles[:, :, : len(pictures)]


def _tiles(pictures: torch.Tensor) -> torch.Tensor:
    """View (images x height x width x channels) as 4 x 4 x images x rows x columns x channels."""
    count, height, width, channels = pictures.shape
    shape = (height // _OUTPUT_TILE, _OUTPUT_TILE, width // _OUTPUT_TILE, _OUTPUT_TILE)
    return pictures.view(count, *shape, channels).permute(2, 4, 0, 1, 3, 5)


def _portions(total: int, step: int) -> Iterator[slice]:
    return (slice(first, first + step) for first in range(0, total, step))
