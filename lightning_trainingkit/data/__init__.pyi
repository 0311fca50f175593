from .cifar10 import CIFAR10DataModule as CIFAR10DataModule
from .digits import DigitsDataModule as DigitsDataModule
from .fashion_mnist import FashionMNISTDataModule as FashionMNISTDataModule
from .image_folder import ImageFolderDataModule as ImageFolderDataModule
from .policies import policy_transform as policy_transform
from .preprocessing import fit_preprocessing as fit_preprocessing
