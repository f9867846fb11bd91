"""The built-in corpus: small procedural pictures with captions, from a seed."""

from lib.datasets.scenes.corpus import GENERATOR_VERSION, Scenes
from lib.datasets.scenes.layout import Scene, SceneObject

__all__ = ["GENERATOR_VERSION", "Scene", "SceneObject", "Scenes"]
