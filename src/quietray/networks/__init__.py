"""The networks, each a frozen dataclass of settings that builds a plain ``torch.nn.Module``."""

from quietray.networks.base import Architecture
from quietray.networks.dncnn import DnCNN
from quietray.networks.lehtinen import LehtinenUNet
from quietray.networks.msd import MSD
from quietray.networks.redcnn import REDCNN
from quietray.networks.unet import UNet
from quietray.settings import called

__all__ = ["MSD", "NETWORKS", "REDCNN", "Architecture", "DnCNN", "LehtinenUNet", "UNet"]

NETWORKS: dict[str, type[Architecture]] = {called(kind): kind for kind in (UNet, LehtinenUNet, MSD, REDCNN, DnCNN)}
