"""What a network is trained to make small: L1 or L2, and what may be added to it, all on the 0-255 scale.

`LostDetail` is VMAF's idea of quality in a form with gradients: how much of the original's detail is there to
be seen, by visual information fidelity (Sheikh and Bovik 2006) and detail loss (Li et al. 2011), each at four
scales and neither rewarding contrast beyond the original's, as VMAF-NEG has it.
`WorseThanLanczos` counts where plain interpolation would have been closer to the original: detail may cost
PSNR only as far as there is a gain to pay from.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, relu

from training.networks.enlarge import lanczos
from training.recipes import Recipe

Taps = tuple[float, ...]

# Daubechies' wavelet of two vanishing moments.
_LOW = (0.482962913144690, 0.836516303737469, 0.224143868041857, -0.129409522550921)
_HIGH = (-0.129409522550921, -0.224143868041857, 0.836516303737469, -0.482962913144690)
_AROUND = (1.0, 1.0, 1.0)
_NEURAL_NOISE = 2.0  # variance, on the 0-255 scale


def _gaussian(size: int) -> Taps:
    taps = [math.exp(-0.5 * ((tap - size // 2) / (size / 5)) ** 2) for tap in range(size)]
    return tuple(tap / sum(taps) for tap in taps)


_WINDOWS = tuple(map(_gaussian, (17, 9, 5, 3)))  # of information fidelity, from the finest scale on


def _visibility() -> Iterator[Taps]:
    """How visible a wavelet's coefficient is on luma (Watson et al. 1997), on a screen seen from three times
    its height: horizontal, vertical and diagonal ones, from the finest scale on."""
    pixels_per_degree = 3 * 1080 * math.pi / 180
    amplitudes = ((0.67234, 0.72709), (0.41317, 0.49428), (0.22727, 0.28688), (0.11792, 0.15214))
    for scale, (straight, diagonal) in enumerate(amplitudes):
        weights = []
        for orientation, amplitude in ((1.0, straight), (1.0, straight), (0.534, diagonal)):
            octaves = math.log10(2.0 ** (scale + 1) * 0.401 * orientation / pixels_per_degree)
            weights.append(amplitude / (2 * 0.495 * 10 ** (0.466 * octaves**2)))
        yield tuple(weights)


_VISIBILITY = tuple(_visibility())


class Loss(nn.Module):
    """A recipe's loss of a batch: network's output, HR, LR and the teachers' outputs, (B, C, …) float32."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        errors: dict[str, Callable[[Tensor, Tensor], Tensor]]
        errors = {"L1": _absolute, "L2": _squared, "PSNR": negative_psnr}
        self._errors = errors[recipe.loss]
        self._detail = LostDetail() if recipe.detail else None
        self._lanczos = WorseThanLanczos(recipe.config.scale) if recipe.lanczos else None
        self._weights = recipe.detail, recipe.lanczos, recipe.teacher

    def forward(self, sr: Tensor, hr: Tensor, lr: Tensor, taught: Sequence[Tensor] = ()) -> Tensor:
        total = self._errors(sr, hr).mean()
        detail, worse, teacher = self._weights
        if self._detail:
            total = total + detail * self._detail(sr, hr)
        if self._lanczos:
            total = total + worse * self._lanczos(sr, hr, lr)
        if taught:
            total = total + teacher * self._errors(sr, self._nearest(sr.detach(), hr, taught)).mean()
        return total

    def _nearest(self, sr: Tensor, hr: Tensor, taught: Sequence[Tensor]) -> Tensor:
        """Of each patch the picture nearest to its original. Where that is the network's own, nothing is to
        be learnt from it: its error has no gradient."""
        nearest, least = sr, self._errors(sr, hr)
        for picture in taught:
            error = self._errors(picture, hr)
            nearest = torch.where((error < least).view(-1, 1, 1, 1), picture, nearest)
            least = torch.minimum(error, least)
        return nearest


def _absolute(sr: Tensor, hr: Tensor) -> Tensor:
    return (sr - hr).abs().mean((1, 2, 3))


def _squared(sr: Tensor, hr: Tensor) -> Tensor:
    return ((sr - hr) ** 2).mean((1, 2, 3))


def negative_psnr(sr: Tensor, hr: Tensor) -> Tensor:
    """The patches' -PSNR in dB, (B): of a soft picture a decibel counts as much as of a hard one, of which L1
    and L2 see nearly all. An error of one level is added to each, so that the best don't outweigh them."""
    return -_psnr(sr, hr, added=1.0)


class WorseThanLanczos(nn.Module):
    """By how many dB a patch's PSNR is below that of Lanczos and a little more; above it, nothing. Mean of
    the patches."""

    MORE_DB = 0.1

    def __init__(self, scale: int) -> None:
        super().__init__()
        self._enlarge = lanczos(scale)

    def forward(self, sr: Tensor, hr: Tensor, lr: Tensor) -> Tensor:
        plain = self._enlarge(lr)
        return relu(_psnr(plain, hr, added=0.1) + self.MORE_DB - _psnr(sr, hr, added=0.1)).mean()


def _psnr(sr: Tensor, hr: Tensor, added: float) -> Tensor:
    """Of each patch, in dB, as if its squared error were larger by `added`; (B)."""
    return 10 * torch.log10(255.0**2 / (_squared(sr, hr) + added))


class LostDetail(nn.Module):
    """0 where all of the original's detail is there, towards 2 where none is; each channel for itself."""

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        sr, hr = sr.flatten(0, 1), hr.flatten(0, 1)
        return 2.0 - fidelity(sr, hr) - kept(sr, hr)


def fidelity(sr: Tensor, hr: Tensor) -> Tensor:
    """The part of the original's information that the result has, 0 to 1: mean of the scales; (B, h, w)."""
    parts = []
    for scale, window in enumerate(_WINDOWS):
        if scale:
            sr, hr = (_filtered(x, window, 2) for x in (sr, hr))
        moments = torch.cat([sr, hr, sr * sr, hr * hr, sr * hr])
        stride = 1 if scale else 2  # a quarter of the finest scale's windows says as much
        mean_sr, mean_hr, sr_sr, hr_hr, sr_hr = _filtered(moments, window, stride).chunk(5)
        of_sr, of_hr = relu(sr_sr - mean_sr**2), relu(hr_hr - mean_hr**2)
        common = relu(sr_hr - mean_sr * mean_hr)
        gain = common / (of_hr + 1e-2)
        rest = relu(of_sr - gain * common)
        received = torch.log2(1 + gain.clamp(max=1.0) ** 2 * of_hr / (rest + _NEURAL_NOISE))
        sent = torch.log2(1 + of_hr / _NEURAL_NOISE)
        # As if a little were sent and received everywhere: of a flat patch there is nothing to be learnt.
        parts.append((received.mean((1, 2)) + 0.05) / (sent.mean((1, 2)) + 0.05))
    return torch.stack(parts).mean()


def kept(sr: Tensor, hr: Tensor) -> Tensor:
    """The part of the original's visible detail that the result has, 0 to 1, what it adds masking it."""
    there, whole = torch.zeros(len(hr), device=hr.device), torch.zeros(len(hr), device=hr.device)
    for weights in _VISIBILITY:
        seen = torch.tensor(weights, device=hr.device).view(3, 1, 1, 1)
        (sr, of_sr), (hr, of_hr) = _bands(sr), _bands(hr)
        restored = torch.minimum(torch.maximum(of_sr, of_hr.clamp(max=0)), of_hr.clamp(min=0))
        added = (seen * (of_sr - restored)).abs().sum(0)
        masked = (_filtered(added, _AROUND, padding=1) + added) / 30
        there = there + _pooled(relu((seen * restored).abs() - masked))
        whole = whole + _pooled((seen * of_hr).abs())
    return (there / whole).mean()


def _bands(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, h, w) at half the size, and its horizontal, vertical and diagonal detail, (3, B, h / 2, w / 2)."""
    rows = [_along(x.mT, taps, 2).mT for taps in (_LOW, _HIGH)]
    (low, vertical), (horizontal, diagonal) = ([_along(r, taps, 2) for taps in (_LOW, _HIGH)] for r in rows)
    return low, torch.stack([horizontal, vertical, diagonal])


def _pooled(x: Tensor) -> Tensor:
    """Cube root of the sum of cubes of each band, as if some faint detail were everywhere; (B)."""
    cubes = (x**3).sum((2, 3)) + 1e-4
    roots: Tensor = cubes ** (1 / 3) + (x.shape[2] * x.shape[3] / 32) ** (1 / 3)
    return roots.sum(0)


def _filtered(x: Tensor, taps: Taps, stride: int = 1, padding: int = 0) -> Tensor:
    return _along(_along(x, taps, stride, padding).mT, taps, stride, padding).mT


def _along(x: Tensor, taps: Taps, stride: int, padding: int = 0) -> Tensor:
    # As a product of matrices: a convolution of so few channels is ten times as slow.
    product: Tensor = x @ _matrix(taps, x.shape[-1], stride, padding).to(x.device)
    return product


@cache
def _matrix(taps: Taps, size: int, stride: int, padding: int) -> Tensor:
    """(size, outputs), each column with the taps of one output."""
    kernel = torch.tensor(taps).view(1, 1, -1)
    matrix: Tensor = conv1d(torch.eye(size)[:, None], kernel, stride=stride, padding=padding)
    return matrix[:, 0].contiguous()
