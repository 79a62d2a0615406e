"""Augmentation: identity when off, draws within their limits, padding never mixed in, any split over devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax.training.augmentation import (
    AugmentationSettings,
    augment,
    frequency_shift,
    mask_stripe,
    mixup,
    random_gain,
    time_shift,
    time_stretch,
)

ROWS, FRAMES, BINS, CLASSES = 16, 40, 20, 5
EVERYTHING = AugmentationSettings(
    max_time_stretch=0.25,
    max_frequency_shift=0.1,
    max_time_shift=0.5,
    time_masks=2,
    max_time_mask=0.25,
    frequency_masks=1,
    max_frequency_mask=0.25,
    mixup_alpha=0.4,
    max_gain_db=6.0,
    db_channels=(True, False),
)


def make_keys(count, seed=0):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(count))


@pytest.fixture
def batch():
    """Images without a zero, one-hot targets, and a mask under which the last three rows are padding."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0.5, 1, (ROWS, FRAMES, BINS, 2)).astype(np.float32)
    targets = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, ROWS)]
    mask = (np.arange(ROWS) < ROWS - 3).astype(np.float32)
    images[ROWS - 3 :], targets[ROWS - 3 :] = 0, 0
    return images, targets, mask


@functools.cache
def compiled(settings):
    return jax.jit(lambda keys, images, targets, mask: augment(keys, images, targets, mask, settings))


def test_everything_is_off_by_default(batch):
    images, targets, mask = batch
    after, after_targets = compiled(AugmentationSettings())(make_keys(ROWS), images, targets, mask)
    np.testing.assert_array_equal(after, images)
    np.testing.assert_array_equal(after_targets, targets)


@pytest.mark.parametrize(
    "nothing",
    [
        AugmentationSettings(max_time_shift=1e-3),  # less than half a frame
        AugmentationSettings(max_frequency_shift=1e-3),
        AugmentationSettings(time_masks=3, max_time_mask=0.0),
        AugmentationSettings(frequency_masks=3, max_frequency_mask=0.0),
    ],
)
def test_changes_of_no_size_are_the_identity(batch, nothing):
    images, targets, mask = batch
    after, after_targets = compiled(nothing)(make_keys(ROWS), images, targets, mask)
    np.testing.assert_array_equal(after, images)
    np.testing.assert_array_equal(after_targets, targets)


def test_settings_change_what_they_name_alone(batch):
    images, targets, mask = batch
    for name in ("max_time_shift", "time_masks", "frequency_masks"):
        value = 0.5 if name == "max_time_shift" else 1
        after, after_targets = compiled(AugmentationSettings(**{name: value}))(make_keys(ROWS), images, targets, mask)
        np.testing.assert_array_equal(after_targets, targets)
        changed = np.asarray(after) != images
        assert changed.any(), name
        if name == "time_masks":  # whole frames
            assert np.all(changed.all((2, 3)) == changed.any((2, 3)))
        if name == "frequency_masks":  # whole bins
            assert np.all(changed.all((1, 3)) == changed.any((1, 3)))


def test_time_shift_rolls(batch):
    image = jnp.asarray(batch[0][0])
    shifted = np.asarray(jax.vmap(lambda key: time_shift(key, image, 0.1))(make_keys(300)))
    rolled = {shift: np.roll(image, shift, axis=0) for shift in range(-4, 5)}
    counts = {shift: int((shifted == each).all((1, 2, 3)).sum()) for shift, each in rolled.items()}
    assert sum(counts.values()) == 300
    assert all(300 / 9 * 0.4 < count < 300 / 9 * 1.7 for count in counts.values())  # each way, as often


@pytest.mark.parametrize(("axis", "size"), [(0, FRAMES), (1, BINS)])
def test_mask_is_one_stripe_within_its_limits(batch, axis, size):
    image = jnp.asarray(batch[0][0])
    masked = np.asarray(jax.vmap(lambda key: mask_stripe(key, image, axis, 0.25))(make_keys(500)))
    zero = masked == 0
    np.testing.assert_array_equal(masked[~zero], np.broadcast_to(image, masked.shape)[~zero])
    lines = zero.all((2, 3) if axis == 0 else (1, 3))
    np.testing.assert_array_equal(lines, zero.any((2, 3) if axis == 0 else (1, 3)))
    widths = lines.sum(1)
    assert set(widths.tolist()) == set(range(size // 4 + 1))
    edges = np.diff(np.pad(lines, [(0, 0), (1, 1)]).astype(int), axis=1)
    assert np.all((edges == 1).sum(1) == (widths > 0))  # one piece
    assert lines.any(0).all()  # any place


def test_whole_axis_may_be_masked():
    masked = jax.vmap(lambda key: mask_stripe(key, jnp.ones((4, 3, 1)), 0, 1.0))(make_keys(200))
    widths = (np.asarray(masked) == 0).all((2, 3)).sum(1)
    assert set(widths.tolist()) == {0, 1, 2, 3, 4}


def test_several_masks_differ():
    """The second of two masks is another draw, not the first one again."""
    ones, targets, mask = jnp.ones((64, FRAMES, 2, 1)), jnp.ones((64, 1)), jnp.ones(64)
    covered = []
    for count in (1, 2):
        after, _ = compiled(AugmentationSettings(time_masks=count, max_time_mask=0.25))(
            make_keys(64), ones, targets, mask
        )
        covered.append((np.asarray(after) == 0).mean())
    assert covered[1] > 1.5 * covered[0]


# Speed and pitch.


def test_a_stretched_ramp_tells_its_speed():
    """A ramp stays a straight line: its slope is the speed, its middle stays, and beyond its ends there is nothing."""
    ramp = jnp.broadcast_to(1 + jnp.arange(101.0)[:, None, None], (101, 3, 2))
    after = np.asarray(jax.vmap(lambda key: time_stretch(key, ramp, 0.25))(make_keys(3000)))
    assert np.all(after == after[:, :, :1, :1])
    np.testing.assert_allclose(after[:, 50], 51, rtol=1e-6)
    speeds = after[:, 51, 0, 0] - after[:, 50, 0, 0]
    assert 0.8 <= speeds.min() < 0.801 and 1.249 < speeds.max() <= 1.2501
    np.testing.assert_allclose(np.quantile(np.log(speeds) / np.log(1.25), [0.25, 0.5, 0.75]), [-0.5, 0, 0.5], atol=0.05)
    for each, speed in zip(after[:200, :, 0, 0], speeds, strict=False):
        places = 50 + (np.arange(101) - 50) * speed
        expected = np.interp(places, np.arange(101), 1 + np.arange(101), left=0, right=0)
        certain = np.minimum(abs(places), abs(places - 100)) > 1e-3  # rounding decides at the very ends
        np.testing.assert_allclose(each[certain], expected[certain], atol=2e-3)


def test_frequency_shift_moves_whole_bins_and_lets_nothing_in():
    image = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1, (4, 20, 2)), jnp.float32)
    after = np.asarray(jax.vmap(lambda key: frequency_shift(key, image, 0.15))(make_keys(400)))
    padded = np.pad(image, ((0, 0), (3, 3), (0, 0)))
    choices = {padded[:, start : start + 20].tobytes(): start - 3 for start in range(7)}
    shifts = [choices[each.tobytes()] for each in after]  # every one of them is such a shift
    assert set(shifts) == set(range(-3, 4))


def test_waveforms_are_stretched_and_never_moved_along_frequency():
    waveforms = np.random.default_rng(0).normal(size=(4, 200, 1, 1)).astype(np.float32)
    targets, mask = np.eye(4, dtype=np.float32), np.ones(4, np.float32)
    after, _ = compiled(AugmentationSettings(max_frequency_shift=1.0))(make_keys(4), waveforms, targets, mask)
    np.testing.assert_array_equal(after, waveforms)
    after, _ = compiled(AugmentationSettings(max_time_stretch=0.5))(make_keys(4), waveforms, targets, mask)
    assert np.all(np.any(np.asarray(after) != waveforms, axis=(1, 2, 3)))


def test_new_changes_leave_the_older_ones_draws(batch):
    images, targets, mask = batch
    older = {"max_time_shift": 0.5, "time_masks": 1, "mixup_alpha": 0.3}
    plain = compiled(AugmentationSettings(**older))(make_keys(ROWS), images, targets, mask)
    still = compiled(AugmentationSettings(**older, max_frequency_shift=1e-3))(make_keys(ROWS), images, targets, mask)
    for one, other in zip(plain, still, strict=True):
        np.testing.assert_array_equal(one, other)


# Level.


def gained(image, settings, count=1):
    """`count` draws of a gain on one image."""
    return np.asarray(jax.vmap(lambda key: random_gain(key, jnp.asarray(image), settings))(make_keys(count)))


def test_gain_is_uniform_in_db_and_one_for_all_cells_and_channels():
    """A magnitude of 0.5 leaves room for 6.02 dB up."""
    settings = AugmentationSettings(max_gain_db=6.0, db_channels=(True, False), range_db=60.0)
    after = gained(np.full((2, 3, 2), 0.5, np.float32), settings, 4000)
    assert np.all(after == after[:, :1, :1])
    gains_db = 20 * np.log10(after[:, 0, 0, 1] / 0.5)
    np.testing.assert_allclose(60 * (after[:, 0, 0, 0] - 0.5), gains_db, atol=1e-4)
    assert gains_db.min() == pytest.approx(-6, abs=0.02)
    assert gains_db.max() == pytest.approx(6, abs=0.02)
    np.testing.assert_allclose(np.quantile(gains_db, [0.25, 0.5, 0.75]), [-3, 0, 3], atol=0.3)


def test_a_gained_image_is_the_image_of_the_gained_sound():
    """Levels of the multiplied sound over the maximum of the old one, cut to the range; but zeros stay."""
    amplitudes = np.geomspace(1e-5, 1, 300)

    def image(amplitudes):
        in_db = np.clip(1 + 20 * np.log10(amplitudes) / 80, 0, 1)
        return np.stack([in_db, np.clip(amplitudes, 0, 1)], axis=-1)[:, None].astype(np.float32)

    before = image(amplitudes)
    after = gained(before, AugmentationSettings(max_gain_db=20.0, db_channels=(True, False), range_db=80.0), 20)
    quiet = before[:, 0, 0] == 0
    assert 10 < quiet.sum() < 100
    factors = after[:, 0, 0, 1] / amplitudes[0]
    assert factors.min() < 0.3
    assert factors.max() > 3
    for each, factor in zip(after, factors, strict=True):
        expected = image(amplitudes * factor)
        np.testing.assert_allclose(each[~quiet], expected[~quiet], atol=2e-6)
        np.testing.assert_allclose(each[quiet, 0, 1], expected[quiet, 0, 1], rtol=1e-5)
        assert np.all(each[quiet, 0, 0] == 0)


def test_all_channels_are_in_db_unless_told_otherwise():
    image = np.random.default_rng(0).uniform(0, 1, (4, 5, 3)).astype(np.float32)
    told = AugmentationSettings(max_gain_db=9.0, db_channels=(True,) * 3)
    np.testing.assert_array_equal(gained(image, AugmentationSettings(max_gain_db=9.0), 5), gained(image, told, 5))


def test_gained_waveform_keeps_its_sign_and_is_cut_at_full_scale():
    waveform = np.array([-1, -0.7, -0.1, 0, 0.1, 0.7, 1], np.float32)[:, None, None]
    after = gained(waveform, AugmentationSettings(max_gain_db=12.0, db_channels=(False,)), 200)
    factors = after[:, 4:5] / 0.1
    assert factors.max() > 2
    np.testing.assert_allclose(after, np.clip(factors * waveform, -1, 1), rtol=1e-5)


def test_gain_neither_lifts_silence_and_masks_nor_changes_other_draws(batch):
    images, targets, mask = batch
    others = {"max_time_shift": 0.5, "time_masks": 2, "frequency_masks": 1}
    plain, _ = compiled(AugmentationSettings(**others))(make_keys(ROWS), images, targets, mask)
    louder, _ = compiled(AugmentationSettings(**others, max_gain_db=10.0))(make_keys(ROWS), images, targets, mask)
    plain, louder = np.asarray(plain), np.asarray(louder)
    np.testing.assert_array_equal(louder == 0, plain == 0)
    inside = (plain > 0) & (louder < 1)
    moved = [np.ptp((louder - plain)[row][inside[row]]) for row in range(ROWS - 3)]
    assert max(moved) < 1e-6  # the same images, each a constant higher or lower
    targets = np.asarray(targets)
    mixed = [compiled(AugmentationSettings(mixup_alpha=0.4, max_gain_db=g)) for g in (0.0, 10.0)]
    a, b = (each(make_keys(ROWS), images, targets, mask)[1] for each in mixed)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("count", [1, 3])
def test_gain_needs_to_know_every_channel(batch, count):
    images, targets, mask = batch
    settings = AugmentationSettings(max_gain_db=1.0, db_channels=(True,) * count)
    with pytest.raises(ValueError, match=f"db_channels has {count} entries for images of 2 channels"):
        augment(make_keys(ROWS), images, targets, mask, settings)


# Waveforms: many samples, one bin.


def test_waveforms_are_shifted_masked_and_mixed_in_time():
    waveforms = np.random.default_rng(0).uniform(0.1, 1, (4, 5003, 1, 1)).astype(np.float32)
    targets, mask = np.eye(4, dtype=np.float32), np.ones(4)
    shifted, _ = compiled(AugmentationSettings(max_time_shift=0.5))(make_keys(4), waveforms, targets, mask)
    for before, after in zip(waveforms[..., 0, 0], np.asarray(shifted)[..., 0, 0], strict=True):
        shift = np.flatnonzero(after == before[0])
        assert len(shift) == 1
        np.testing.assert_array_equal(after, np.roll(before, shift[0]))
    masked, _ = compiled(AugmentationSettings(time_masks=1))(make_keys(4), waveforms, targets, mask)
    assert 0 < (np.asarray(masked) == 0).sum(1).max() <= 500


@pytest.mark.parametrize("max_mask", [0.1, 1.0])
def test_frequency_mask_never_erases_a_waveform(max_mask):
    waveforms, targets = np.ones((32, 100, 1, 1), np.float32), np.eye(32, dtype=np.float32)
    settings = AugmentationSettings(frequency_masks=3, max_frequency_mask=max_mask)
    after, _ = compiled(settings)(make_keys(32), waveforms, targets, np.ones(32))
    np.testing.assert_array_equal(after, waveforms)


# Mixup.


def test_mixup_mixes_pairs(batch):
    images, targets, _ = (values[:12] for values in batch)
    mixed, mixed_targets = mixup(make_keys(12), images, targets, jnp.ones(12), 0.4)
    partners = np.arange(12) ^ 1  # 0 with 1, 2 with 3
    difference = images - images[partners]
    own = np.asarray((mixed - images[partners]) * difference).sum((1, 2, 3)) / (difference**2).sum((1, 2, 3))
    assert np.all((own > 0.5 - 1e-6) & (own < 1 + 1e-6))
    assert own.std() > 0.05
    weights = own[:, None, None, None]
    np.testing.assert_allclose(mixed, weights * images + (1 - weights) * images[partners], atol=1e-5)
    different = np.any(targets != targets[partners], axis=1)
    assert different.sum() > 4
    kept = (np.asarray(mixed_targets) * targets).sum(1)
    np.testing.assert_allclose(kept[different], own[different], atol=1e-5)


def test_mixup_weights_follow_the_beta_distribution():
    """Uniform for alpha 1, so the larger share is uniform from 1/2 to 1."""
    rows = 2000
    values = jnp.tile(jnp.array([1.0, 0.0]), rows // 2)[:, None]
    mixed, _ = mixup(make_keys(rows), values, values, jnp.ones(rows), 1.0)
    own = np.where(np.arange(rows) % 2 == 0, np.asarray(mixed)[:, 0], 1 - np.asarray(mixed)[:, 0])
    np.testing.assert_allclose(np.quantile(own, [0.25, 0.5, 0.75]), [0.625, 0.75, 0.875], atol=0.02)
    assert abs(np.corrcoef(own[::2], own[1::2])[0, 1]) < 0.1  # each row of a pair draws its own


def test_mixup_keeps_the_mass_of_real_rows(batch):
    images, targets, mask = batch
    _, mixed = mixup(make_keys(ROWS), images, targets, mask, 0.4)
    real = mask > 0
    np.testing.assert_allclose(np.asarray(mixed)[real].sum(1), 1, rtol=1e-6)
    assert np.all(np.asarray(mixed)[real].argmax(1) == targets[real].argmax(1))  # the own class leads


@pytest.mark.parametrize("settings", [EVERYTHING, AugmentationSettings(mixup_alpha=0.4)])
def test_padding_does_not_leak(batch, settings):
    images, targets, mask = batch
    keys = make_keys(ROWS)
    loud = np.where(mask[:, None, None, None] > 0, images, 1e6)
    wrong = np.where(mask[:, None] > 0, targets, 7.0)
    clean = compiled(settings)(keys, images, targets, mask)
    leaked = compiled(settings)(keys, loud, wrong, mask)
    real = mask > 0
    for a, b in zip(clean, leaked, strict=True):
        np.testing.assert_array_equal(np.asarray(a)[real], np.asarray(b)[real])
    lonely = np.flatnonzero(real & (mask[np.arange(ROWS) ^ 1] == 0))
    assert len(lonely) == 1
    np.testing.assert_array_equal(np.asarray(clean[1])[lonely], targets[lonely])  # no partner: as it was


def test_odd_batch_raises(batch):
    images, targets, mask = batch
    with pytest.raises(ValueError, match="even number of clips a device, not 15"):
        mixup(make_keys(15), images[:15], targets[:15], mask[:15], 0.4)


# Keys and settings.


@pytest.mark.parametrize("devices", [2, 8])
def test_draws_are_the_same_on_any_number_of_devices(batch, devices):
    images, targets, mask = batch
    whole = compiled(EVERYTHING)(make_keys(ROWS), images, targets, mask)
    parts = np.split(np.arange(ROWS), devices)
    keys = make_keys(ROWS)
    split = [compiled(EVERYTHING)(keys[part], images[part], targets[part], mask[part]) for part in parts]
    for i in range(2):
        np.testing.assert_allclose(np.concatenate([each[i] for each in split]), whole[i], rtol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        AugmentationSettings(max_time_shift=0.5),
        AugmentationSettings(max_gain_db=6.0),
        AugmentationSettings(max_time_stretch=0.25),
        AugmentationSettings(max_frequency_shift=0.5),
    ],
)
def test_rows_and_keys_draw_differently(batch, settings):
    images, targets, mask = batch
    same = np.broadcast_to(images[:1], images.shape)
    after, _ = compiled(settings)(make_keys(ROWS), same, targets, mask)
    assert len({image.tobytes() for image in np.asarray(after)}) > ROWS / 2
    again, _ = compiled(settings)(make_keys(ROWS, seed=1), same, targets, mask)
    assert np.any(np.asarray(after) != np.asarray(again))
