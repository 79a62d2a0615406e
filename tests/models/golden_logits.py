"""Golden logits of torchvision's networks with drawn weights; `python tests/models/golden_logits.py` writes them.

The .npz file beside this one contains, by network, the names and shapes of torchvision's state dict and the logits;
the weights themselves are a function of names and shapes and are not stored.
"""

import zlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
NETS = ("tiny", "full")  # one bottleneck a stage in 4 groups of 4 channels; ResNeXt-50 32x4d
IMAGES = (2, 64, 96, 3)
CLASSES = 100  # at most so many logits are stored


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draws values that keep activations near 1, from uniform draws alone, whose stream NumPy does not change."""
    if name.endswith("num_batches_tracked"):
        return np.asarray(7)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    center, half_width = 0.0, 0.5
    if len(shape) > 1:
        half_width = np.sqrt(6 / np.prod(shape[1:]))
    elif name.endswith("bn3.weight"):  # the branches of many blocks add up
        center, half_width = 0.3, 0.15
    elif name.endswith((".weight", ".running_var")):
        center = 1.0
    return (center + half_width * (2 * rng.random(shape) - 1)).astype(np.float32)


def images() -> np.ndarray:
    """Returns noise `[B, T, F, 3]` float32 that fades to the right in the first image and to the end in the second."""
    noise = np.random.default_rng(0).random(IMAGES) - 0.5
    _, frames, bins, _ = IMAGES
    noise[0] *= np.linspace(8, 0, bins)[None, :, None]
    noise[1] *= np.linspace(8, 0, frames)[:, None, None]
    return noise.astype(np.float32)


def state_dict(net: str) -> dict[str, np.ndarray]:
    """Returns the drawn weights of `net` under torchvision's names, in torch's layout."""
    with np.load(FILE) as golden:
        entries = [entry.split() for entry in golden[f"{net}_state"]]
    return {name: draw(name, tuple(int(size) for size in shape)) for name, *shape in entries}


def logits(net: str) -> np.ndarray:
    """Returns the golden logits `[B, K]` of `images()`."""
    with np.load(FILE) as golden:
        return golden[f"{net}_logits"]


def torchvision_net(net: str):
    """Builds torchvision's own module."""
    from torchvision.models import resnet

    if net == "full":
        return resnet.resnext50_32x4d()
    return resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=10, groups=4, width_per_group=4)


def answer(module) -> np.ndarray:
    """Returns logits `[B, K]` of a torch module with the drawn weights, computed in float64."""
    import torch

    state = {name: torch.tensor(draw(name, tuple(value.shape))) for name, value in module.state_dict().items()}
    module.load_state_dict(state, strict=True)
    with torch.no_grad():
        return module.double().eval()(torch.tensor(images()).double().permute(0, 3, 1, 2)).numpy()


def main() -> None:
    """Writes the file."""
    content = {}
    for net in NETS:
        module = torchvision_net(net)
        shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
        content[f"{net}_state"] = np.array([" ".join(map(str, (name, *shape))) for name, shape in shapes.items()])
        content[f"{net}_logits"] = answer(module)[:, :CLASSES]
    np.savez_compressed(FILE, **content)


if __name__ == "__main__":
    main()
