from .cifar10 import CIFAR10DataModule as CIFAR10DataModule
from .digits import DigitsDataModule as DigitsDataModule
from .fashion_mnist import FashionMNISTDataModule as FashionMNISTDataModule
from .image_folder import ImageFolderDataModule as ImageFolderDataModule
from .transforms.augment import Augment as Augment
from .transforms.colour_offset import ColourOffset as ColourOffset
from .transforms.lens_distortion import LensDistortion as LensDistortion
