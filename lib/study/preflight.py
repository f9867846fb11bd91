"""What a notebook's parameters need of this machine, looked for before its kernel starts."""

import os
from inspect import signature
from typing import Any

from lib.chapters.parameters import validate
from lib.study.catalogue import StudyError, Values

WAIT_POLICY = "OMP_WAIT_POLICY"
SIZES = ("train_images", "train_sizes", "scratch_images")


def for_a_busy_machine() -> tuple[dict[str, str], str]:
    """Return variables for kernels on a machine whose cores are taken, and a line that says so.

    Threads that wait for each other by spinning slow small matrices down several times if other
    work has the cores. How threads wait changes no number; how many there are would. What the user
    has set stays.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    cores = os.cpu_count() or 1
    if WAIT_POLICY in os.environ or load < cores / 2:
        return {}, ""
    said = (
        f"this machine is busy (load {load:.1f} on {cores} cores): threads wait without spinning "
        f"({WAIT_POLICY}=PASSIVE)"
    )
    return {WAIT_POLICY: "PASSIVE"}, said


def check_needs(notebook: str, values: Values) -> None:
    """Refuse a device, tower, corpus or size that is not there.

    Only what ``values`` names is looked for: finished runs need neither a corpus nor its towers.

    Args:
        notebook: Its name.
        values: The checked parameters that differ from the notebook's defaults.

    Raises:
        StudyError: Something is not there; the text names the notebook and the parameter.
    """
    if not {"device", "image_tower", "text_tower", "corpus_root", *SIZES} & set(values):
        return
    # These import torch, for which a notebook of defaults need not wait.
    from lib.datasets import CORPORA, load_corpus
    from lib.encoders import load_image_tower, load_text_tower, resolve_device

    parameters: Any = validate(notebook, values)
    checks = {"device": resolve_device, "image_tower": load_image_tower}
    for name, check in {**checks, "text_tower": load_text_tower}.items():
        if name in values:
            try:
                check(values[name])
            except ValueError as error:
                raise StudyError(f"notebook {notebook!r}: {name}: {error}") from error
    corpus, root = getattr(parameters, "corpus", ""), getattr(parameters, "corpus_root", "")
    on_disk = corpus in CORPORA and "root" in signature(CORPORA[corpus]).parameters
    if not corpus or (on_disk and not root):
        return
    try:
        loaded = load_corpus(corpus, root=root, on_bad_sample=parameters.on_bad_sample)
    except (ValueError, OSError) as error:
        raise StudyError(f"notebook {notebook!r}: corpus_root: {error}") from error
    available = sum(bool(sample.captions) for sample in loaded.split("train"))
    for name in SIZES:
        asked = getattr(parameters, name, [])
        for size in asked if isinstance(asked, list) else [asked]:
            if size > available:
                raise StudyError(
                    f"notebook {notebook!r}: {name} = {size}, but the train split of {corpus} has "
                    f"{available} images with a caption; ask for at most that many"
                )
