"""Networks: the papers' own by name, and anybody's by import path, Hugging Face folder, timm or torchvision name.

load_model("mu-cnn:width=24,activation=tanh", num_classes=2, input_shape=(3, 64, 64), seed=0)
"""

from leakgauge.models.catalogue import names
from leakgauge.models.entry import ModelEntry, OptionEntry
from leakgauge.models.load import load_model
from leakgauge.models.name import ModelName

__all__ = ["ModelEntry", "ModelName", "OptionEntry", "load_model", "names"]
