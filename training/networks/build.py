"""From a configuration to its network."""

from typing import TypeGuard

from torch import nn

from engine.config import AwsrnConfig
from engine.network.awsrn import Awsrn
from training.networks.ablated import Ablated
from training.networks.carn import Carn
from training.networks.centred import Centred
from training.networks.config import AblationConfig, BaselineConfig, NetworkConfig
from training.networks.dbpn import Dbpn
from training.networks.drcn import Drcn
from training.networks.drrn import Drrn
from training.networks.edsr import Edsr
from training.networks.enlarge import bicubic, lanczos
from training.networks.espcn import Espcn
from training.networks.fsrcnn import Fsrcnn
from training.networks.lapsrn import Lapsrn
from training.networks.mdsr import Mdsr
from training.networks.memnet import Memnet
from training.networks.msrn import Msrn
from training.networks.rcan import Rcan
from training.networks.rdn import Rdn
from training.networks.selnet import Selnet
from training.networks.srcnn import Srcnn
from training.networks.srdensenet import Srdensenet
from training.networks.srmd import Srmdnf
from training.networks.srresnet import Srresnet
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


def looks_around(network: nn.Module) -> TypeGuard[Awsrn]:
    """Whether it wants to see more of a picture than the patch of it that it enlarges."""
    return isinstance(network, Awsrn) and network.config.context > 0


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
        case "drcn":
            return Drcn(config.scale)
        case "lapsrn":
            return Lapsrn(config.scale)
        case "drrn":
            return Drrn(config.scale)
        case "memnet":
            return Memnet(config.scale)
        case "selnet":
            return Selnet(config.scale)
        case "srdensenet":
            return Srdensenet(config.scale)
        case "srmdnf":
            return Srmdnf(config.scale)
        case "msrn":
            return Centred(Msrn(config.scale))
        case "srresnet":
            return Centred(Srresnet(config.scale))
        case "edsr":
            return Centred(Edsr(config.scale))
        case "mdsr":
            return Centred(Mdsr(config.scale))
        case "rdn":
            return Centred(Rdn(config.scale))
        case "rcan":
            return Centred(Rcan(config.scale))
        case "d-dbpn":
            return Centred(Dbpn(config.scale))
