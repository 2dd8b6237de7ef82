"""From a configuration to its network."""

from torch import nn

from engine.config import AwsrnConfig
from engine.network.awsrn import Awsrn
from training.networks.ablated import Ablated
from training.networks.carn import Carn
from training.networks.config import AblationConfig, BaselineConfig, NetworkConfig
from training.networks.enlarge import bicubic, lanczos
from training.networks.espcn import Espcn
from training.networks.fsrcnn import Fsrcnn
from training.networks.srcnn import Srcnn
from training.networks.vdsr import Vdsr


def build_network(config: NetworkConfig) -> nn.Module:
    """The network, newly initialised: (B, C, h, w) float on 0-255 → (B, C, s·h, s·w), not clamped; C is 3
    where `config.colour` is 'rgb', 1 where it is 'y'."""
    match config:
        case AwsrnConfig():
            return Awsrn(config)
        case AblationConfig():
            return Ablated(config)
        case BaselineConfig():
            return _baseline(config)


def _baseline(config: BaselineConfig) -> nn.Module:
    match config.kind:
        case "bicubic":
            return bicubic(config.scale)
        case "lanczos":
            return lanczos(config.scale)
        case "srcnn":
            return Srcnn(config.scale)
        case "fsrcnn":
            return Fsrcnn(config.scale)
        case "espcn":
            return Espcn(config.scale)
        case "vdsr":
            return Vdsr(config.scale)
        case "carn":
            return Carn(config.scale)
        case "carn-m":
            return Carn(config.scale, mobile=True)
