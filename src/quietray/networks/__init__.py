"""The networks, each a frozen dataclass of settings that builds a plain ``torch.nn.Module``."""

from quietray.networks.base import Architecture
from quietray.registry import Registry

# The order here is the order in which networks are listed; the first is the default.
# isort: off
from quietray.networks.unet import UNet
from quietray.networks.lehtinen import LehtinenUNet
from quietray.networks.msd import MSD
from quietray.networks.redcnn import REDCNN
from quietray.networks.dncnn import DnCNN
# isort: on

__all__ = ["MSD", "NETWORKS", "REDCNN", "Architecture", "DnCNN", "LehtinenUNet", "UNet"]

NETWORKS: Registry[Architecture] = Architecture.registry
