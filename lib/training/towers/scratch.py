"""Towers from random weights: ResNet-18 on pixels, a recurrent network on words."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from lib.datasets import Corpus
from lib.encoders.features import cached_rows
from lib.noise.captions import caption_words
from lib.runs import RunConfig
from lib.training.data import Pairs
from lib.training.towers.inputs import TowerInputs, Towers, row_numbers
from lib.utils.seeds import torch_generator

PADDING, UNKNOWN = 0, 1
WORD_FEATURES, STATE_FEATURES = 128, 256
RECURRENT: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True)
class ScratchInputs(TowerInputs):
    """Pixels and words.

    Attributes:
        pixels: (N, 3, size, size) uint8 on the device.
        words: (M, longest) numbers of the corpus's words, 0 after a caption's end; on the CPU.
    """

    pixels: Tensor
    words: Tensor

    def towers(self, config: RunConfig, pairs: Pairs) -> "ScratchTowers":
        """Return towers drawn by the run's seed, with a vocabulary of its training captions."""
        assert config.towers is not None
        captions = self.words[torch.from_numpy(pairs.all_captions())]
        towers = ScratchTowers(
            self,
            vocabulary(captions, config.towers.least_count, int(self.words.max()) + 1),
            config.text_tower,
            config.towers.augmentation != "none",
        )
        for part, name in ((towers.network, "image tower"), (towers.recurrent, "text tower")):
            initialise(part, torch_generator(config.seed, "initialisation", name))
        initialise(towers.embedding, torch_generator(config.seed, "initialisation", "words"))
        return towers.to(self.data.device)


class ScratchTowers(Towers):
    """ResNet-18 (He et al., CVPR 2016) and a GRU or LSTM whose last state is the caption."""

    known: Tensor

    def __init__(
        self, inputs: ScratchInputs, known: Tensor, recurrent: str, augmented: bool
    ) -> None:
        super().__init__()
        self.widths = 512, STATE_FEATURES
        self._inputs, self._augmented = inputs, augmented
        self.register_buffer("known", known, persistent=False)
        self.network = resnet18()
        self.embedding = nn.Embedding(int(known.max()) + 1, WORD_FEATURES, padding_idx=PADDING)
        self.recurrent = RECURRENT[recurrent](WORD_FEATURES, STATE_FEATURES, batch_first=True)

    def image(self, rows: Tensor, draws: np.random.Generator | None = None) -> Tensor:
        """Return the features (B, 512) of images."""
        pixels = self._inputs.pixels[rows.to(self._inputs.pixels.device)]
        if draws is not None and self._augmented:
            pixels = augment(pixels, draws)
        # To [-2, 2]: about zero mean and unit deviation for photographs.
        scaled = pixels.to(torch.float32) / 63.75 - 2
        features: Tensor = self.network(scaled.contiguous(memory_format=torch.channels_last))
        return features

    def text(self, rows: Tensor) -> Tensor:
        """Return the features (B, 256) of captions."""
        words = self._inputs.words[rows.cpu()]
        length = (words != PADDING).sum(dim=1)
        words = words[:, : int(length.max())].to(self.known.device)
        embedded = self.embedding(self.known[words])
        # The recurrence needs a step: a caption without words becomes one padding.
        packed = pack_padded_sequence(
            embedded, length.clamp(min=1), batch_first=True, enforce_sorted=False
        )
        # In single precision, since some GPUs' recurrences take no other; the cost is small.
        with torch.autocast(embedded.device.type, enabled=False):
            state = self.recurrent(packed)[1]
        last: Tensor = (state[0] if isinstance(state, tuple) else state)[-1]
        return last


class SinglePixelConvolution(nn.Conv2d):
    """A convolution that is computed as a matrix product if its output is a single pixel: the same
    function, several times faster on a CPU. Weights that meet only padding are left out."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (B, C, H, W)."""
        size, pad = input.shape[-1], int(self.padding[0])
        reach = self.kernel_size[0] - pad
        square = input.shape[-2] == size and len(set(self.kernel_size)) == 1
        if not square or size > reach or (size + 2 * pad - self.kernel_size[0]) // self.stride[0]:
            return super().forward(input)
        met = self.weight[:, :, pad : pad + size, pad : pad + size]
        return F.linear(input.flatten(1), met.flatten(1), self.bias)[:, :, None, None]


def resnet18() -> nn.Module:
    """Return torchvision's ResNet-18 up to its pooled features (B, 512)."""
    network = torchvision.models.resnet18(weights=None)
    network.fc = nn.Identity()
    for block in network.layer4:
        for name in ("conv1", "conv2"):
            old = getattr(block, name)
            new = SinglePixelConvolution(
                old.in_channels, old.out_channels, 3, old.stride, padding=1, bias=False
            )
            setattr(block, name, new)
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return]


@torch.no_grad()
def initialise(module: nn.Module, draws: torch.Generator) -> None:
    """Draw the weights of a network from a generator, as torchvision and torch do by default."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            # Into a contiguous tensor: values are drawn in the order of the memory.
            drawn = torch.empty(part.weight.shape)
            nn.init.kaiming_normal_(drawn, mode="fan_out", nonlinearity="relu", generator=draws)
            part.weight.copy_(drawn)
        elif isinstance(part, nn.Embedding):
            part.weight.normal_(generator=draws)
            part.weight[PADDING] = 0
        elif isinstance(part, nn.RNNBase):
            bound = part.hidden_size**-0.5
            for weight in part.parameters():
                weight.uniform_(-bound, bound, generator=draws)


def vocabulary(captions: Tensor, least_count: int, words: int) -> Tensor:
    """Return the number of each word of the corpus in a run's vocabulary.

    Args:
        captions: (m, longest) the training captions, as numbers of the corpus's words.
        least_count: How often a known word must occur in the captions.
        words: Number of words of the corpus, with padding and unknown.

    Returns:
        (words,) 0 for padding, 1 for unknown words, and from 2 on for known words.

    >>> vocabulary(torch.tensor([[2, 4, 4], [4, 0, 0]]), least_count=2, words=6)
    tensor([0, 1, 1, 1, 2, 1])
    """
    known = torch.bincount(captions.flatten(), minlength=words) >= least_count
    known[: UNKNOWN + 1] = False
    numbers = torch.where(known, UNKNOWN + known.cumsum(0), UNKNOWN)
    numbers[PADDING] = PADDING
    return numbers


def augment(pixels: Tensor, draws: np.random.Generator) -> Tensor:
    """Shift images (B, 3, S, S) by up to S / 8, repeating the edge, and mirror every second one."""
    count, _, _, size = pixels.shape
    reach = size // 8
    shift = torch.from_numpy(draws.integers(-reach, reach + 1, size=(2, count, 1)))
    mirrored = torch.from_numpy(draws.random(count) < 0.5)[:, None]
    rows, columns = (torch.arange(size) + shift).clamp(0, size - 1)
    columns = torch.where(mirrored, columns.flip(1), columns)
    index = torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]
    moved = tuple(part.to(pixels.device) for part in index)
    return pixels.permute(0, 2, 3, 1)[moved].permute(0, 3, 1, 2)


def load_scratch(
    corpus: Corpus, image_tower: str, text_tower: str, device: torch.device
) -> ScratchInputs:
    """Load a corpus's pixels and words.

    Raises:
        ValueError: A tower cannot be trained from scratch.
    """
    match = re.fullmatch(r"resnet18@(\d+)", image_tower)
    if not match or not 32 <= int(match[1]) <= 512:
        raise ValueError(
            f"image_tower = {image_tower!r} cannot be trained from scratch; use 'resnet18@PIXELS' "
            "with 32 to 512 pixels"
        )
    if text_tower not in RECURRENT:
        raise ValueError(
            f"text_tower = {text_tower!r} cannot be trained from scratch; use gru or lstm"
        )
    pixels = load_pixels(corpus, int(match[1]))
    words = word_numbers([c for sample in corpus.samples for c in sample.captions])
    return ScratchInputs(
        data=row_numbers(corpus, device),
        caption_length=(words != PADDING).sum(dim=1).numpy(),
        pixels=torch.from_numpy(np.array(pixels)).to(device),
        words=words,
    )


def load_pixels(corpus: Corpus, size: int) -> NDArray[np.uint8]:
    """Return a corpus's images, resized without cropping to (N, 3, size, size), cached."""
    samples = corpus.samples

    def encode(start: int, stop: int) -> Tensor:
        images = [
            corpus.load_image(sample).resize((size, size), Image.Resampling.BICUBIC)
            for sample in samples[start:stop]
        ]
        return torch.from_numpy(np.stack([np.asarray(image) for image in images])).flatten(1)

    facts = f"{corpus.fingerprint} pixels, {size} px, bicubic, version 1"
    key = hashlib.sha256(facts.encode()).hexdigest()
    description = f"{corpus.name}: images at {size} pixels"
    rows = cached_rows(key, description, [1] * len(samples), 3 * size**2, encode, np.uint8)
    return rows.reshape(len(samples), size, size, 3).transpose(0, 3, 1, 2)


def word_numbers(captions: Sequence[str]) -> Tensor:
    """Return captions as numbers (M, longest) of words, in alphabetical order from 2, then zeros.

    >>> word_numbers(["a dog .", "A cat , a dog"])
    tensor([[2, 4, 0, 0],
            [2, 3, 2, 4]])
    """
    split = [caption_words(caption) for caption in captions]
    distinct = sorted({word for words in split for word in words})
    numbers = {word: number for number, word in enumerate(distinct, start=UNKNOWN + 1)}
    longest = max((len(words) for words in split), default=0)
    table = torch.zeros(len(split), max(1, longest), dtype=torch.long)
    for row, words in enumerate(split):
        table[row, : len(words)] = torch.tensor([numbers[word] for word in words], dtype=torch.long)
    return table
