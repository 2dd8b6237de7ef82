"""SRDenseNet, eight dense blocks whose features all reach the reconstruction (Tong et al., ICCV 2017).

Built by the paper's text: growth rate 16, eight layers a block, a 1×1 bottleneck to 256, a 3×3 transposed
convolution of 256 for each doubling, a 3×3 to luma: 69 layers at ×4. That has 2,142 K weights, and by the
rule for FSRCNN, a transposed convolution at its output's size, costs 736.9 G. The 2,015 K and 389.9 G of
table 5 come from CARN's, whose authors do not say how they counted; no reading of the text that was tried
gives both.
"""

import torch
from torch import Tensor, nn

GROWTH, LAYERS, BLOCKS, BOTTLENECK = 16, 8, 8, 256
FEATURES = GROWTH * LAYERS


class DenseBlock(nn.Module):
    """(B, 128, h, w) → (B, 128, h, w): what its layers made, each from all before it in the block."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (FEATURES, *(GROWTH * layer for layer in range(1, LAYERS)))
        self.layers = nn.ModuleList(nn.Conv2d(into, GROWTH, 3, padding=1) for into in inputs)

    def forward(self, x: Tensor) -> Tensor:
        made: list[Tensor] = []
        for layer in self.layers:
            made.append(torch.relu(layer(torch.cat(made, dim=1) if made else x)))
        return torch.cat(made, dim=1)


class Srdensenet(nn.Module):
    """(B, 1, h, w) luma on 0-255 → (B, 1, s·h, s·w); s is 2, 4 or 8 (published for 4)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(1, FEATURES, 3, padding=1)
        self.blocks = nn.ModuleList(DenseBlock() for _ in range(BLOCKS))
        self.bottleneck = nn.Conv2d((1 + BLOCKS) * FEATURES, BOTTLENECK, 1)
        enlarge: list[nn.Module] = []
        for _ in range(scale.bit_length() - 1):
            # (n - 1)·2 - 2 + 3 + 1 = 2n
            deconv = nn.ConvTranspose2d(BOTTLENECK, BOTTLENECK, 3, stride=2, padding=1, output_padding=1)
            enlarge += [deconv, nn.ReLU()]
        self.enlarge = nn.Sequential(*enlarge)
        self.exit = nn.Conv2d(BOTTLENECK, 1, 3, padding=1)

    def forward(self, lr: Tensor) -> Tensor:
        features = [torch.relu(self.entry(lr / 255))]
        for block in self.blocks:
            features.append(block(features[-1]))
        y: Tensor = self.exit(self.enlarge(torch.relu(self.bottleneck(torch.cat(features, dim=1)))))
        return y * 255
