"""Pretrained towers whose last block is trained; the states before it are computed once, cached."""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lib.datasets import Corpus
from lib.encoders import ImageTower, TextTower, extract_features, load_image_tower, load_text_tower
from lib.encoders.features import cached_rows, distinct_captions
from lib.runs import RunConfig
from lib.training.data import Pairs, TrainingData
from lib.training.towers.inputs import TowerInputs, Towers, row_numbers

KEPT_AS = np.float16
"""Type of cached states: half the disk space. Training is in single precision."""


@dataclass(frozen=True)
class LastBlockInputs(TowerInputs):
    """The states before the last blocks, on the device.

    Attributes:
        image_states: (N, channels, height, width), float16.
        token_states: (tokens, d) of all distinct captions, concatenated, float16.
        first_token, token_count: (M,) first row and number of a caption's tokens.
        image_block, text_block: The blocks with their pretrained weights.
        features: Features of the whole pretrained towers, to standardise the heads on.
    """

    image_states: Tensor
    token_states: Tensor
    first_token: Tensor
    token_count: Tensor
    image_block: nn.Module
    text_block: nn.Module
    features: TrainingData

    def towers(self, config: RunConfig, pairs: Pairs) -> "BlockTowers":
        """Return a run's copy of the last blocks."""
        return BlockTowers(self).to(self.data.device)


class BlockTowers(Towers):
    """The last blocks of both towers, always in evaluation mode."""

    def __init__(self, inputs: LastBlockInputs) -> None:
        super().__init__()
        features = inputs.features
        self.widths = features.image.shape[1], features.text.shape[1]
        self._inputs = inputs
        self.image_block = copy.deepcopy(inputs.image_block).requires_grad_(True)
        self.text_block = copy.deepcopy(inputs.text_block).requires_grad_(True)

    def train(self, mode: bool = True) -> "BlockTowers":
        """Stay in evaluation mode: small batches would spoil the pretrained batch statistics."""
        super().train(False)
        return self

    def image(self, rows: Tensor, draws: np.random.Generator | None = None) -> Tensor:
        """Return the features (B, d_image) of images, never augmented."""
        states = self._inputs.image_states[rows].float()
        features: Tensor = self.image_block(states.contiguous(memory_format=torch.channels_last))
        return features

    def text(self, rows: Tensor) -> Tensor:
        """Return the features (B, d_text) of captions, the mean over their tokens."""
        first, count = self._inputs.first_token[rows], self._inputs.token_count[rows]
        index = torch.arange(int(count.max()), device=rows.device)
        present = index < count[:, None]
        # After a caption's end its last token is repeated, and masked.
        tokens = first[:, None] + torch.minimum(index, count[:, None] - 1)
        mask = torch.zeros(present.shape, device=rows.device)
        mask = mask.masked_fill(~present, torch.finfo(mask.dtype).min)[:, None, None, :]
        states = self.text_block(self._inputs.token_states[tokens].float(), mask)
        kept = present[..., None]
        mean: Tensor = (states * kept).sum(1) / kept.sum(1)
        return mean

    def standardisation(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Return the pretrained towers' features of a run's images and captions."""
        features = self._inputs.features
        image = torch.from_numpy(pairs.image).to(features.device)
        text = torch.from_numpy(pairs.all_captions()).to(features.device)
        return features.image[image], features.text[text]


class _TextBlock(nn.Module):
    """A transformer layer; its return value differs between releases of transformers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        out = self.layer(states, mask)
        return cast(Tensor, out[0] if isinstance(out, tuple) else out)


def split_image_tower(tower: ImageTower) -> tuple[Callable[[Tensor], Tensor], nn.Module]:
    """Cut an image tower into the part before its last block, and that block with the pooling.

    Raises:
        ValueError: The tower is no EfficientNet.
    """
    model: Any = tower.model
    if not all(hasattr(model, n) for n in ("conv_stem", "bn1", "blocks", "conv_head", "bn2")):
        raise ValueError(
            f"image_tower = {tower.name!r} cannot be cut before its last block; use one of timm's "
            "EfficientNets, such as 'efficientnet-lite0'"
        )
    before = nn.Sequential(model.conv_stem, model.bn1, *list(model.blocks)[:-1])
    last = nn.Sequential(model.blocks[-1], model.conv_head, model.bn2, model.global_pool)
    return before, last.to(memory_format=torch.channels_last)


def split_text_tower(tower: TextTower) -> nn.Module:
    """Return a text tower's last layer.

    Raises:
        ValueError: The tower is not of the BERT kind.
    """
    layers = getattr(getattr(tower.model, "encoder", None), "layer", None)
    if layers is None:
        raise ValueError(
            f"text_tower = {tower.name!r} cannot be cut before its last layer; use one of the BERT "
            "kind, such as 'minilm'"
        )
    return _TextBlock(layers[-1])


def load_last_blocks(
    corpus: Corpus, image_tower: str, text_tower: str, device: torch.device
) -> LastBlockInputs:
    """Compute the states before the last blocks, or load them from the cache.

    Raises:
        TowerError: A tower cannot be loaded.
        ValueError: A tower cannot be cut.
    """
    images, texts = load_image_tower(image_tower), load_text_tower(text_tower)
    before, image_block = split_image_tower(images)
    text_block = split_text_tower(texts)
    states = _image_states(corpus, images, before, device)
    tokens, first, count = _token_states(corpus, texts, device)
    features = extract_features(corpus, image_tower, text_tower, str(device))
    return LastBlockInputs(
        data=row_numbers(corpus, device),
        caption_length=count,
        image_states=torch.from_numpy(np.array(states)).to(device),
        token_states=torch.from_numpy(np.array(tokens)).to(device),
        first_token=torch.from_numpy(first).to(device),
        token_count=torch.from_numpy(count).to(device),
        image_block=image_block,
        text_block=text_block,
        features=TrainingData.of(features, device),
    )


def _image_states(
    corpus: Corpus, tower: ImageTower, before: Callable[[Tensor], Tensor], device: torch.device
) -> NDArray[Any]:
    samples = corpus.samples
    tower.model.to(device)

    @torch.inference_mode()
    def encode(start: int, stop: int) -> Tensor:
        pixels = [tower.transform(corpus.load_image(sample)) for sample in samples[start:stop]]
        return before(torch.stack(pixels).to(device)).float().cpu().flatten(1)

    with torch.inference_mode():
        first = tower.transform(corpus.load_image(samples[0]))[None].to(device)
        shape = before(first).shape[1:]
    rows = cached_rows(
        _key(corpus.fingerprint, tower.fingerprint),
        f"{corpus.name}: images up to the last block of {tower.name}",
        [1] * len(samples),
        int(np.prod(shape)),
        encode,
        KEPT_AS,
    )
    return rows.reshape(len(samples), *shape)


def _token_states(
    corpus: Corpus, tower: TextTower, device: torch.device
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Return the tokens' states, and each caption's first token and number of tokens."""
    distinct, caption_index = distinct_captions(corpus)
    options = {"truncation": True, "max_length": tower.tokens}
    tokens = tower.tokenizer(distinct, **options)["input_ids"]
    lengths = np.array([len(numbers) for numbers in tokens], dtype=np.int64)
    tower.model.to(device)

    @torch.inference_mode()
    def encode(start: int, stop: int) -> Tensor:
        texts = distinct[start:stop]
        batch = tower.tokenizer(texts, padding=True, return_tensors="pt", **options).to(device)
        states = tower.model(**batch, output_hidden_states=True).hidden_states[-2]
        return cast(Tensor, states[batch["attention_mask"].bool()].float().cpu())

    rows = cached_rows(
        _key(corpus.fingerprint, tower.fingerprint),
        f"{corpus.name}: captions up to the last layer of {tower.name}",
        lengths.tolist(),
        tower.dim,
        encode,
        KEPT_AS,
    )
    return rows, (np.cumsum(lengths) - lengths)[caption_index], lengths[caption_index]


def _key(corpus: str, tower: str) -> str:
    return hashlib.sha256(f"{corpus} {tower} before the last block, version 1".encode()).hexdigest()
