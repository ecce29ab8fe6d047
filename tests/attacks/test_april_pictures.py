"""april on pictures: patches from the position embedding's gradient, whatever the attention behind; the walls are named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import leakgauge as lg
from leakgauge.attacks.exact.patches.layer import patch_layer
from leakgauge.core.reconstruction import Outcome
from leakgauge.data import load_data
from leakgauge.errors import UnsupportedError

SPEC = lg.ImageSpec(shape=(3, 16, 16), mean=0.5, std=0.25)


class Patched(nn.Module):
    """A small vision transformer of one block; `bare` leaves out residual connections and the norm before the attention."""

    def __init__(
        self, width: int = 64, *, bare: bool = False, linear: bool = False, overlap: bool = False, padding: int = 0
    ) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.bare, self.linear = bare, linear
        stride = 3 if overlap else 4
        self.tokens = nn.Linear(48, width) if linear else nn.Conv2d(3, width, 4, stride, padding=padding)
        count = 16 if not overlap and not padding else 25
        self.first = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, count + 1, width) * 0.1)
        self.norm = nn.Identity() if bare else nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, pictures: Tensor) -> Tensor:
        if self.linear:
            patches = pictures.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
            tokens = self.tokens(patches)
        else:
            tokens = self.tokens(pictures).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(tokens), -1, -1), tokens], 1) + self.positions
        seen = self.norm(tokens)
        scores = (self.query(seen) @ self.key(seen).transpose(1, 2) / seen.shape[-1] ** 0.5).softmax(2)
        mixed = scores @ self.value(seen)
        mixed = torch.tanh(mixed) if self.bare else tokens + mixed
        return self.head(self.last(mixed).mean(1))


def picture(count: int = 1, spec: lg.ImageSpec = SPEC) -> lg.Batch:
    generator = lg.rng(1, "pictures")
    pixels = torch.rand((count, *spec.shape), generator=generator)
    return lg.Batch(spec.normalise(pixels), torch.randint(5, (count,), generator=generator), spec=spec)


def attacked(model: nn.Module, batch: lg.Batch, withhold: tuple[str, ...] = (), **training: object) -> lg.Reconstruction:
    update = lg.Client(model, training=lg.LocalTraining(**training), withhold=withhold).train(batch)
    seen = lg.ThreatModel.honest_but_curious(labels=False).observe(update, model, batch.spec)
    return lg.attack(seen, "april", device="cpu")


@pytest.mark.parametrize("options", [{}, {"linear": True}, {"overlap": True}, {"bare": True}], ids=str)
def test_patches_in_closed_form(options):
    batch = picture()
    guess = attacked(Patched(**options).eval(), batch)
    assert float((guess.inputs - batch.inputs).abs().max()) < 1e-3
    assert guess.labels.tolist() == batch.labels.tolist()
    assert guess.outcome is Outcome.DETERMINED
    assert bool(guess.certified.all())


def test_by_the_identity_where_the_patches_layer_was_not_shared():
    batch = picture()
    guess = attacked(Patched(bare=True).eval(), batch, ("tokens.weight",), dtype="float64")
    assert "Tokens by the attention's identity" in guess.stats.notes[0]
    assert float((guess.inputs - batch.inputs).abs().max()) < 1e-3
    with pytest.raises(UnsupportedError, match="more than the first attention layer reads the tokens"):
        attacked(Patched().eval(), batch, ("tokens.weight",))
    with pytest.raises(UnsupportedError, match="a patch has 48 numbers and a token 32"):
        attacked(Patched(32, bare=True).eval(), batch, ("tokens.weight",))


def test_steps_of_sgd_add_up():
    batch = picture()
    guess = attacked(Patched().eval(), batch, lr=0.05, steps=3, momentum=0.9, dtype="float64")
    assert float((guess.inputs - batch.inputs).abs().max()) < 1e-5


def test_a_network_narrower_than_its_patches_leaves_some_open():
    batch = picture()
    guess = attacked(Patched(12).eval(), batch)
    assert guess.outcome is Outcome.UNDERDETERMINED
    assert not guess.certified.any()
    assert "combinations of patches are open" in guess.stats.notes[-1]
    smooth = torch.linspace(0, 1, 16).expand(1, 3, 16, 16).clone()
    easy = lg.Batch(SPEC.normalise(smooth), torch.tensor([2]), spec=SPEC)
    assert float(lg.score(easy, attacked(Patched(12).eval(), easy)).psnr[0]) > 30.0


@pytest.mark.parametrize(
    ("model", "count", "withhold", "words"),
    [
        (Patched(), 2, (), "reads one example, and the batch has 2"),
        (Patched(), 1, ("positions",), "the gradient of the position embedding 'positions' was not shared"),
        (Patched(padding=2), 1, (), "needs a layer that reads patches"),
        (nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(), nn.Linear(128, 5)), 1, (), "no learnable position embedding"),
    ],
    ids=["two", "withheld", "padded", "convolution"],
)
def test_what_does_not_fit_is_refused(model, count, withhold, words):
    with pytest.raises(UnsupportedError, match=words):
        attacked(model.eval(), picture(count), withhold)


def test_the_pixels_of_a_patch_are_found_by_their_numbers():
    layer = patch_layer(Patched(linear=True).double(), SPEC.shape, torch.zeros((), dtype=torch.float64))
    inputs = picture().inputs[0]
    assert layer.weight == "tokens.weight"
    assert torch.equal(layer.joined(layer.cut(inputs), SPEC.shape), inputs)
    assert torch.equal(layer.cut(inputs)[0], inputs[:, :4, :4].permute(1, 2, 0).flatten())


def test_a_vision_transformer_from_a_configuration(data_root):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=3,
        intermediate_size=384,
        image_size=32,
        patch_size=4,
        num_labels=10,
    )
    config._attn_implementation = "eager"
    model = transformers.ViTForImageClassification(config).eval()
    pictures = load_data(f"cifar10:{data_root / 'cifar10'}?indices=0-1")
    for index in range(2):
        batch = lg.Batch(pictures.inputs[index : index + 1], pictures.labels[index : index + 1], spec=pictures.spec)
        guess = attacked(model, batch)
        assert guess.outcome is Outcome.DETERMINED
        assert guess.labels.tolist() == batch.labels.tolist()
        assert float(lg.score(batch, guess).psnr[0]) > 60.0
