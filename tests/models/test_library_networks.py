"""Networks of transformers, timm and torchvision, and what happens when these are absent or broken."""

import importlib.util
import json
import subprocess
import sys

import pytest
import torch

from leakgauge.errors import MissingExtraError, ModelError
from leakgauge.models import load_model

TINY = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
}


@pytest.fixture
def forget():
    """Puts sys.modules back, so that a stub is not found by later tests."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] in ("timm", "torchvision")}
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("timm", "torchvision")]:
        del sys.modules[name]
    sys.modules.update(before)


def write_config(folder, **changes):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**TINY, **changes}))
    return folder


class TestHuggingFace:
    def setup_method(self):
        pytest.importorskip("transformers")

    def test_built_from_its_config(self, tmp_path):
        folder = write_config(tmp_path / "bert")
        state = torch.get_rng_state()
        model = load_model(f"hf:{folder}", num_classes=5, seed=1)
        assert torch.equal(state, torch.get_rng_state())
        assert type(model).__name__ == "BertForSequenceClassification"
        assert not model.training
        assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 5)
        again, other = load_model(f"hf:{folder}/config.json", 5, seed=1), load_model(f"hf:{folder}", 5, seed=2)
        assert torch.equal(model.classifier.weight, again.classifier.weight)  # however its folder is spelt
        assert not torch.equal(model.classifier.weight, other.classifier.weight)
        same = load_model(f"hf:{folder}", 5, seed=1)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))

    def test_can_be_differentiated_twice(self, tmp_path):
        model = load_model(f"hf:{write_config(tmp_path / 'bert')}")
        inputs = torch.rand(1, 4, 8, requires_grad=True)
        outputs = model(inputs_embeds=inputs, attention_mask=torch.ones(1, 4)).logits
        gradients = torch.autograd.grad(outputs.square().sum(), list(model.parameters()), create_graph=True, allow_unused=True)
        (second,) = torch.autograd.grad(sum(g.square().sum() for g in gradients if g is not None), inputs)
        assert second.abs().max() > 0

    def test_weights_are_loaded(self, tmp_path):
        model = load_model(f"hf:{write_config(tmp_path / 'bert')}", seed=7)
        model.save_pretrained(tmp_path / "saved")
        found = load_model(f"hf:{tmp_path / 'saved'}", seed=8)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), found.parameters(), strict=True))
        with pytest.raises(ModelError, match="were saved with 2 labels; num_classes is 3"):
            load_model(f"hf:{tmp_path / 'saved'}", num_classes=3)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"architectures": None}, "has no 'architectures'"),
            ({"architectures": ["BertForEverything"]}, "names the class 'BertForEverything'"),
            ({"architectures": ["AutoConfig"]}, "names the class 'AutoConfig'"),
            ({"model_type": "of-my-own", "auto_map": {"AutoConfig": "evil.Evil"}}, "no remote code is run"),
            ({"num_attention_heads": 3}, "cannot be built"),
        ],
    )
    def test_configs_that_do_not_work(self, tmp_path, changes, words):
        folder = write_config(tmp_path / "bert", **changes)
        (folder / "evil.py").write_text("raise SystemExit('ran')")
        with pytest.raises(ModelError) as caught:
            load_model(f"hf:{folder}")
        assert words in str(caught.value)

    def test_pickled_weights_are_not_replaced_by_random_ones(self, tmp_path):
        folder = write_config(tmp_path / "bert")
        (folder / "pytorch_model.bin").write_bytes(b"")
        with pytest.raises(ModelError, match="only as a pickle"):
            load_model(f"hf:{folder}")

    def test_a_broken_torchvision_costs_one_sentence(self, tmp_path):
        """In a process of its own, since transformers remembers what it has imported."""
        folder = write_config(tmp_path / "bert")
        (tmp_path / "torchvision").mkdir()
        (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
        (tmp_path / "torchvision-0.99.dist-info").mkdir()
        (tmp_path / "torchvision-0.99.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.99\n"
        )
        code = (
            "import sys\n"
            f"sys.path.insert(0, {str(tmp_path)!r})\n"
            "from leakgauge.errors import LeakgaugeError\n"
            "from leakgauge.models import load_model\n"
            "load_model('lenet-dlg')\n"
            "try:\n"
            f"    print(type(load_model({f'hf:{folder}'!r})).__name__)\n"
            "except LeakgaugeError as error:\n"
            "    print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "torchvision::nms does not exist" in done.stdout or "BertForSequenceClassification" in done.stdout

    def test_nothing_is_downloaded(self, tmp_path):
        with pytest.raises(ModelError, match="nothing is downloaded"):
            load_model("hf:nobody/nothing-of-this-name")


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_absent_library(library):
    if importlib.util.find_spec(library):
        pytest.skip(f"{library} is installed")
    with pytest.raises(MissingExtraError) as caught:
        load_model(f"{library}:resnet18")
    assert str(caught.value) == (
        f"The model '{library}:resnet18' needs the package '{library}', which is not installed: pip install 'leakgauge[vision]'."
    )


def stub(tmp_path, monkeypatch, name, text, models=""):
    package = tmp_path / name
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text(text)
    (package / "models" / "__init__.py").write_text(models)
    monkeypatch.syspath_prepend(str(tmp_path))
    for known in [known for known in sys.modules if known.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, known)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize(
    "failure",
    ["RuntimeError('operator torchvision::nms does not exist')", "OSError('undefined symbol')", "AttributeError('extension')"],
)
def test_broken_library(tmp_path, monkeypatch, forget, library, failure):
    stub(tmp_path, monkeypatch, library, f"raise {failure}\n")
    with pytest.raises(MissingExtraError) as caught:
        load_model(f"{library}:resnet18")
    assert "is installed but cannot be imported" in str(caught.value)
    assert failure.split("(")[0] in str(caught.value)
    assert load_model("lenet-dlg")(torch.rand(1, 3, 32, 32)).shape == (1, 10)  # nothing else is hurt


TORCHVISION = """
from torch import nn
calls = []
def list_models(module=None):
    return ["resnet18", "vit_b_16"]
def get_model(name, weights, **arguments):
    calls.append((name, weights, arguments))
    return nn.Linear(2, arguments.get("num_classes", 1000))
"""
TIMM = """
from types import SimpleNamespace
from torch import nn
calls = []
def is_model(name):
    return name in list_models()
def list_models():
    return ["resnet18", "vit_tiny"]
def create_model(name, pretrained, **arguments):
    calls.append((name, pretrained, arguments))
    return nn.Linear(2, arguments.get("num_classes", 1000))
class models:
    @staticmethod
    def get_pretrained_cfg(name):
        return SimpleNamespace(fixed_input_size=name.startswith("vit"))
"""


def test_torchvision_is_asked_for_random_weights(tmp_path, monkeypatch, forget):
    stub(tmp_path, monkeypatch, "torchvision", "from . import models\n", TORCHVISION)
    first = load_model("torchvision:resnet18", 10, (3, 32, 32), seed=1)
    assert torch.equal(first.weight, load_model("torchvision:resnet18", 10, (3, 32, 32), seed=1).weight)
    load_model("torchvision:vit_b_16", 10, (3, 32, 32))
    calls = sys.modules["torchvision.models"].calls
    assert calls[0] == ("resnet18", None, {"num_classes": 10})
    assert calls[-1] == ("vit_b_16", None, {"num_classes": 10, "image_size": 32})
    with pytest.raises(ModelError, match="torchvision has no classifier 'resnet81'. Did you mean 'resnet18'"):
        load_model("torchvision:resnet81")
    with pytest.raises(ModelError, match="takes 3 channels"):
        load_model("torchvision:resnet18", 10, (1, 32, 32))


def test_timm_is_asked_for_random_weights(tmp_path, monkeypatch, forget):
    stub(tmp_path, monkeypatch, "timm", TIMM)
    load_model("timm:resnet18", 10, (1, 32, 32))
    load_model("timm:vit_tiny", None, (3, 64, 48))
    calls = sys.modules["timm"].calls
    assert calls == [
        ("resnet18", False, {"num_classes": 10, "in_chans": 1}),
        ("vit_tiny", False, {"in_chans": 3, "img_size": (64, 48)}),
    ]
    with pytest.raises(ModelError, match="timm has no network 'resnet81'. Did you mean 'resnet18'"):
        load_model("timm:resnet81")
