"""YAMNet: its published scores where they are at hand; patches, weights under both names, statistics of folded ones."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from audiotag_jax.models import yamnet_weights
from audiotag_jax.models.pretrained import WeightsError
from audiotag_jax.models.yamnet import EPSILON, LAYERS, RELU, RELU6, YamnetBody, cut_patches
from audiotag_jax.models.yamnet_weights import find_weights, import_yamnet, read_weights, with_statistics

WIDTH = 2
BODY = YamnetBody(WIDTH)


def log_mel(num_clips: int, num_frames: int = 144) -> np.ndarray:
    return np.random.default_rng(0).normal(-2, 2, (num_clips, num_frames, 64, 1)).astype(np.float32)


def shapes() -> dict:
    return jax.eval_shape(lambda x: BODY.init(jax.random.key(0), x, False), log_mel(1))


def keras_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights of the small body under the names of the Keras file, without gamma, and a classifier."""
    rng, arrays, before = np.random.default_rng(seed), {}, 1

    def norm(name, size):
        arrays[f"{name}/bn/beta"] = rng.normal(0, 0.5, size)
        arrays[f"{name}/bn/moving_mean"] = rng.normal(0, 0.5, size)
        arrays[f"{name}/bn/moving_variance"] = rng.uniform(0.5, 2, size)

    for number, (channels, _) in enumerate(LAYERS, 1):
        features = channels * WIDTH // 32
        if number == 1:
            arrays["layer1/conv/kernel"] = rng.normal(0, 0.3, (3, 3, 1, features))
            norm("layer1/conv", features)
        else:
            arrays[f"layer{number}/depthwise_conv/depthwise_kernel"] = rng.normal(0, 0.5, (3, 3, before, 1))
            norm(f"layer{number}/depthwise_conv", before)
            arrays[f"layer{number}/pointwise_conv/kernel"] = rng.normal(0, before**-0.5, (1, 1, before, features))
            norm(f"layer{number}/pointwise_conv", features)
        before = features
    arrays |= {"logits/kernel": rng.normal(0, 1, (before, 521)), "logits/bias": rng.normal(0, 1, 521)}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def folded(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same network without batch norms, its convolutions numbered one by one, as TFLite's converter leaves it."""
    result, number = {}, 0
    for name, kernel in arrays.items():
        layer, _, last = name.rpartition("/")
        if layer == "logits":
            result[name] = kernel
        elif "kernel" in last:
            number += 1
            gain = 1 / np.sqrt(arrays[f"{layer}/bn/moving_variance"] + EPSILON)
            kind = "depthwise_conv" if last == "depthwise_kernel" else "conv"
            kernel = kernel.transpose(0, 1, 3, 2) if last == "depthwise_kernel" else kernel
            result[f"layer{number}/{kind}/kernel"] = kernel * gain
            bias = arrays[f"{layer}/bn/beta"] - arrays[f"{layer}/bn/moving_mean"] * gain
            result[f"layer{number}/{kind}/bias"] = bias
    return result


def features(variables: dict, x: np.ndarray, **options) -> np.ndarray:
    return np.asarray(jax.jit(lambda v, x: BODY.apply(v, x, False, **options))(variables, x))


def with_ceiling(variables: dict, ceiling: float) -> dict:
    return {**variables, "batch_stats": {**variables["batch_stats"], "ceiling": np.array([ceiling], np.float32)}}


def test_patches_overlap_by_half():
    x = np.arange(2 * 250 * 3).reshape(2, 250, 3)
    patches = np.asarray(cut_patches(x))
    assert patches.shape == (2, 4, 96, 3)
    for number in range(4):
        np.testing.assert_array_equal(patches[:, number], x[:, 48 * number : 48 * number + 96])


def test_a_patch_does_not_depend_on_the_others_and_padding_does_not_count():
    variables, _ = import_yamnet(keras_weights(), "random", shapes())
    x = log_mel(2)
    whole = features(variables, x)
    assert whole.shape == (2, 2, 1, 32 * WIDTH) and whole.std() > 1e-3
    np.testing.assert_allclose(features(variables, x[:, 48:])[:, 0], whole[:, 1], rtol=1e-4, atol=1e-5)
    train = jax.jit(lambda x, mask: BODY.apply(variables, x, True, mask, mutable=["batch_stats"]))
    mask = np.array([1.0, 0.0])
    (one, stats), (other, other_stats) = (train(np.stack([x[0], row]), mask) for row in (x[1], 5 + 0 * x[1]))
    np.testing.assert_array_equal(one[0], other[0])
    jax.tree.map(np.testing.assert_array_equal, stats, other_stats)


@pytest.mark.parametrize("shape", [(1, 95, 64, 1), (1, 96, 63, 1), (1, 96, 64, 3), (1, 96, 64)])
def test_inputs_of_another_shape_raise(shape):
    with pytest.raises(ValueError, match=r"YAMNet needs images \[clips, frames, 64, 1\] of 96 frames or more"):
        jax.eval_shape(lambda x: YamnetBody().init(jax.random.key(0), x, False), jnp.zeros(shape))


def test_both_forms_of_weights_are_one_network():
    arrays = keras_weights()
    keras, classifier = import_yamnet(arrays, "keras", shapes())
    tflite, _ = import_yamnet(folded(arrays), "tflite", shapes())
    np.testing.assert_array_equal(classifier["kernel"], arrays["logits/kernel"])
    assert keras["batch_stats"]["ceiling"] == np.float32(RELU) and tflite["batch_stats"]["ceiling"] == RELU6
    x = log_mel(2)
    expected = features(with_ceiling(keras, 1.0), x)
    np.testing.assert_allclose(features(with_ceiling(tflite, 1.0), x), expected, rtol=1e-3, atol=1e-4)
    assert np.abs(features(with_ceiling(keras, 0.5), x) - expected).max() > 0.01  # the ceiling has an effect


def test_statistics_make_training_compute_what_evaluation_does():
    variables, _ = import_yamnet(folded(keras_weights()), "folded", shapes())
    x = log_mel(8)
    assert yamnet_weights.is_folded(variables["batch_stats"])
    found = with_statistics(BODY, variables, x)
    assert not yamnet_weights.is_folded(found["batch_stats"])
    before = features(variables, x)
    np.testing.assert_allclose(features(found, x), before, rtol=1e-3, atol=1e-4)

    def trained(variables):
        return np.asarray(jax.jit(lambda v: BODY.apply(v, x, True, mutable=["batch_stats"])[0])(variables))

    np.testing.assert_allclose(trained(found), before, rtol=1e-2, atol=1e-3)
    assert np.abs(trained(variables) - before).max() > 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda arrays: arrays.pop("layer3/pointwise_conv/kernel"),
            "1 missing, such as params/layer3/pointwise_conv/k",
        ),
        (
            lambda arrays: arrays.update({"layer15/conv/kernel": np.ones(3)}),
            "1 unexpected, such as layer15/conv/kernel",
        ),
        (
            lambda arrays: arrays.update({"layer1/conv/bn/beta": np.ones(3)}),
            "1 of another shape, such as params/layer1",
        ),
        (lambda arrays: arrays["layer1/conv/kernel"].fill(np.nan), "1 not finite, such as params/layer1/conv/kernel"),
    ],
)
def test_other_weights_are_refused(change, words):
    arrays = keras_weights()
    change(arrays)
    with pytest.raises(WeightsError, match=f"weights.x is not YAMNet: of .* names, {words}"):
        import_yamnet(arrays, "weights.x", shapes())


def test_the_keras_file(tmp_path):
    """As Keras writes it: each layer's name, a path of groups, twice."""
    h5py = pytest.importorskip("h5py")
    arrays = keras_weights()
    with h5py.File(tmp_path / "yamnet.h5", "w") as file:
        for name, array in arrays.items():
            layer = name.rpartition("/")[0]
            file[f"{layer}/{name}:0"] = array
    read = read_weights(find_weights(tmp_path))
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
    (tmp_path / "yamnet.h5").write_bytes(b"no HDF5")
    with pytest.raises(WeightsError, match="yamnet.h5 is not a complete HDF5 file"):
        read_weights(tmp_path / "yamnet.h5")


def test_files_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="contains neither yamnet.safetensors nor yamnet.h5"):
        find_weights(tmp_path)
    with pytest.raises(WeightsError, match="There is no file .*weights.h5; name YAMNet's weights"):
        find_weights(tmp_path / "weights.h5")
    with pytest.raises(WeightsError, match="yamnet_class_map.csv is missing"):
        yamnet_weights.class_names(tmp_path / "yamnet.h5")
    (tmp_path / "yamnet_class_map.csv").write_text("index,mid,display_name\n0,/m/1,Speech\n")
    with pytest.raises(WeightsError, match="must list 521 classes in order"):
        yamnet_weights.class_names(tmp_path / "yamnet.h5")
    if importlib.util.find_spec("h5py") is None:
        with pytest.raises(WeightsError, match="needs h5py: pip install h5py"):
            find_weights("yamnet", tmp_path)


def test_every_leaf_of_the_body_is_imported():
    variables, _ = import_yamnet(keras_weights(), "random", shapes())
    found, expected = (traverse_util.flatten_dict(tree, sep="/") for tree in (variables, shapes()))
    assert {name: np.shape(leaf) for name, leaf in found.items()} == {
        name: leaf.shape for name, leaf in expected.items()
    }
