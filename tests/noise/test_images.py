"""Image noise: size and mode stay, constants are the source's, global random state is unused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import norm

from lib.datasets import load_corpus
from lib.noise import IMAGE_KINDS, SEVERITIES, corrupt_image
from lib.noise.images import BLUR_SIGMA, HIDDEN_SIDE, NOISE_SIGMA

kinds = st.sampled_from(sorted(IMAGE_KINDS))
severities = st.sampled_from(SEVERITIES)


def corrupted(image, kind, severity, seed=0):
    return corrupt_image(image, kind, severity, np.random.default_rng(seed))


def pixels(image):
    return np.asarray(image).astype(float)


@given(st.integers(1, 60), st.integers(1, 60), kinds, severities, st.integers(0, 2**32))
def test_size_and_mode_stay_and_equal_draws_give_equal_images(width, height, kind, severity, seed):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    once = corrupted(image, kind, severity, seed)
    assert (once.mode, once.size) == ("RGB", (width, height))
    assert np.array_equal(once, corrupted(image, kind, severity, seed))
    assert np.array_equal(image, values)


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_changes_grow_with_severity(kind):
    corpus = load_corpus("scenes", train=12, val=0, test=0)
    images = [corpus.load_image(sample) for sample in corpus.samples]
    distance = [
        np.mean(
            [
                np.square(pixels(image) - pixels(corrupted(image, kind, severity, seed))).mean()
                for seed, image in enumerate(images)
            ]
        )
        for severity in SEVERITIES
    ]
    assert all(np.diff(distance) > 0)
    assert distance[0] > 10


@pytest.mark.parametrize("kind", ["Gaussian noise", "occlusion"])
def test_other_draws_give_another_image(kind):
    image = load_corpus("scenes", train=1, val=0, test=0)
    image = image.load_image(image.samples[0])
    assert not np.array_equal(corrupted(image, kind, 3, 0), corrupted(image, kind, 3, 1))


def test_no_global_random_state_is_read_or_changed():
    image = Image.new("RGB", (30, 20), (90, 120, 60))
    torch.manual_seed(5)
    before, results = torch.random.get_rng_state(), []
    for seed in (5, 6):
        torch.manual_seed(seed)
        results.append([corrupted(image, kind, 3) for kind in IMAGE_KINDS])
    for one, two in zip(*results, strict=True):
        assert np.array_equal(one, two)
    torch.manual_seed(5)
    assert torch.equal(torch.random.get_rng_state(), before)
    corrupted(image, "Gaussian noise", 1)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_standard_deviation_of_its_severity(severity):
    # On mid-grey, black and white cut off only a little of the normal distribution.
    noise = pixels(corrupted(Image.new("RGB", (300, 300), (128,) * 3), "Gaussian noise", severity))
    rng = np.random.default_rng(1)
    expected = np.clip(128 + 255 * NOISE_SIGMA[severity - 1] * rng.standard_normal(10**6), 0, 255)
    assert noise.std() == pytest.approx(expected.std(), rel=0.01)
    assert noise.mean() == pytest.approx(128, abs=1)


@pytest.mark.parametrize(("width", "height"), [(224, 224), (448, 336)])
@pytest.mark.parametrize("severity", [1, 4])
def test_blur_widens_an_edge_in_proportion_to_the_image(width, height, severity):
    """A step that a Gaussian blurs becomes the Gaussian's distribution function."""
    for axis, length in ((1, width), (0, height)):
        step = np.zeros((height, width, 3), dtype=np.uint8)
        half = [slice(None)] * 2
        half[axis] = slice(length // 2, None)
        step[tuple(half)] = 255
        blurred = pixels(corrupted(Image.fromarray(step), "Gaussian blur", severity))[..., 0]
        profile = blurred.mean(axis=1 - axis) / 255
        sigma = BLUR_SIGMA[severity - 1] * length / 224
        centre = np.arange(length) - length // 2 + 0.5
        np.testing.assert_allclose(profile, norm.cdf(centre / sigma), atol=0.02)


@pytest.mark.parametrize(("width", "height"), [(100, 100), (200, 50)])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_occlusion_hides_one_grey_rectangle(width, height, severity):
    white = Image.new("RGB", (width, height), (255, 255, 255))
    tops = set()
    for seed in range(40):
        hidden = pixels(corrupted(white, "occlusion", severity, seed))[..., 0]
        assert set(np.unique(hidden)) == {128, 255}
        rows, columns = (np.flatnonzero((hidden == 128).any(axis=axis)) for axis in (1, 0))
        share = HIDDEN_SIDE[severity - 1]
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (share * height, share * width)
        assert (hidden == 128).sum() == len(rows) * len(columns)
        tops.add(int(rows[0]))
    assert len(tops) > 5


@pytest.mark.parametrize(("severity", "step"), [(1, 32 / 8), (4, 80 / 8), (5, 114 / 8)])
def test_jpeg_rounds_a_flat_block_to_the_step_of_its_quality(severity, step):
    """By hand: the step of a block's mean is 16 in the standard's table, times 50 over the quality
    (25, 10 or 7), rounded. The coefficient is 8 times (grey - 128)."""
    for grey in range(0, 256, 5):
        found = pixels(corrupted(Image.new("RGB", (16, 8), (grey,) * 3), "JPEG", severity))
        assert np.ptp(found) == 0
        offset = (grey - 128) / step
        nearest = 128 + step * np.array([np.floor(offset + 0.5), np.ceil(offset - 0.5)])
        assert np.abs(found[0, 0, 0] - nearest.clip(0, 255)).min() <= 1


@pytest.mark.parametrize(
    ("kind", "severity", "message"),
    [
        ("jpeg", 3, "noise 'jpeg' is unknown; use one of Gaussian noise, Gaussian blur"),
        ("word drop", 3, "noise 'word drop' is unknown"),
        ("JPEG", 0, "severity = 0; use a whole number from 1 to 5"),
        ("JPEG", 6, "severity = 6"),
    ],
)
def test_an_unknown_kind_or_severity_is_refused(kind, severity, message):
    picture = Image.new("RGB", (8, 8))
    with pytest.raises(ValueError, match=message):
        corrupt_image(picture, kind, severity, np.random.default_rng(0))
