"""Private examples from where they lie: demo pictures, folders, CIFAR, MNIST, cats and dogs, MedMNIST, npz, DICOM, texts.

load_data("cifar10:~/cifar-10-batches-py?indices=0-4&split=test")
"""

from leakgauge.data.catalogue import DataEntry, names
from leakgauge.data.demo import demo_names, demo_pictures
from leakgauge.data.load import load_data
from leakgauge.data.public import public_pictures
from leakgauge.data.spec import DataSpec, parse_data_spec

__all__ = ["DataEntry", "DataSpec", "demo_names", "demo_pictures", "load_data", "names", "parse_data_spec", "public_pictures"]
