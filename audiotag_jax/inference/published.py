"""Published networks as taggers, without any training: YAMNet, for the 521 classes of AudioSet."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from audiotag_jax.inference.tagger import Tagger, load_tagger
from audiotag_jax.models.build import TaggingNetwork
from audiotag_jax.models.yamnet import YAMNET, AudioSetHead, YamnetBody
from audiotag_jax.models.yamnet_weights import class_names, find_weights, import_yamnet, read_weights
from audiotag_jax.runtime.errors import UserError
from audiotag_jax.settings.record import FILE_NAME
from audiotag_jax.spectral import yamnet
from audiotag_jax.spectral.features import SpectralSettings
from audiotag_jax.spectral.front_end import FrontEnd


def open_tagger(workdir: Path, source: str = "") -> Tagger:
    """Returns the tagger of the run in `workdir`, or the one that `source` names: a run too, or YAMNet's weights.

    The latter are a file, a folder, or "yamnet" (downloaded). Raises UserError where it cannot be loaded.
    """
    if not source:
        return load_tagger(workdir)
    return load_tagger(Path(source)) if (Path(source) / FILE_NAME).is_file() else load_yamnet_tagger(source)


def load_yamnet_tagger(source: str) -> Tagger:
    """Returns YAMNet: windows of one patch, 0.975 s, every 0.48 s, as it was published. Raises UserError."""
    length_samples = (yamnet.PATCH_FRAMES - 1) * yamnet.HOP_SAMPLES + yamnet.WINDOW_SAMPLES
    front_end = FrontEnd(length_samples, SpectralSettings((YAMNET,), yamnet.SAMPLE_RATE_HZ), YAMNET)
    network = TaggingNetwork(YamnetBody(), AudioSetHead())
    try:
        path = find_weights(source)
        classes = class_names(path)
        variables = _variables(path, network)
    except ValueError as error:
        raise UserError(f"--tagger {source}: {error}") from error
    return Tagger(
        name=YAMNET,
        classes=classes,
        sample_rate_hz=yamnet.SAMPLE_RATE_HZ,
        length_samples=length_samples,
        folds=(),
        temperature=1.0,
        calibration_errors=(np.nan, np.nan),
        variables=jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], variables),
        network=network,
        front_end=front_end,
        rounds_images=False,
        activation="sigmoid",
        usual_hop_s=yamnet.PATCH_HOP_FRAMES * yamnet.HOP_SAMPLES / yamnet.SAMPLE_RATE_HZ,
    )


def _variables(path: Path, network: TaggingNetwork) -> dict:
    patch = jax.ShapeDtypeStruct((1, yamnet.PATCH_FRAMES, yamnet.NUM_BANDS, 1), jnp.float32)
    expected = jax.eval_shape(lambda images: network.init(jax.random.key(0), images, train=False), patch)
    body = {kind: expected[kind]["body"] for kind in ("params", "batch_stats")}
    found, classifier = import_yamnet(read_weights(path), str(path), body)
    shapes = {name: leaf.shape for name, leaf in expected["params"]["head"]["logits"].items()}
    if {name: np.shape(leaf) for name, leaf in classifier.items()} != shapes:
        raise ValueError(f"{path} has no classifier of AudioSet's classes, logits/kernel and logits/bias.")
    head = {"logits": classifier}
    return {"params": {"body": found["params"], "head": head}, "batch_stats": {"body": found["batch_stats"]}}
