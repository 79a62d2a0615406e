"""Measures clips a second of the training step, alone and with the input pipeline, against PyTorch with timm.

    python benchmarks/train_step.py --model=small --batch_size=32
    python benchmarks/train_step.py --model=resnext50_32x4d --batch_size=8 --cpu_devices=2

Every step is forward, backward and AdamW on images of noise, 224 x 224, float32 on a CPU, bfloat16 on a GPU. PyTorch
(channels last; on a GPU autocast and torch.compile) runs timm's network of the same name, or for `small` one of the
same layers; without PyTorch only ours is timed. "Fed" steps use the training loop's input pipeline, with augmentation:
batches gathered on the devices by index, or stacked by grain's threads; they are compared with the bare step on one
batch in memory with the same augmentation. `--profile` adds the time by operation. Run it on an idle machine.
"""

import argparse
import collections
import gzip
import importlib.util
import json
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from audiotag_jax.datasets.reader import Examples  # noqa: E402
from audiotag_jax.runtime.memory import keep_freed_memory  # noqa: E402
from audiotag_jax.settings.settings import parse_settings  # noqa: E402
from audiotag_jax.training.input_pipeline import Batches, TrainingOrder, read_ahead, resident_data  # noqa: E402
from audiotag_jax.training.optimizer import make_optimizer, make_phases  # noqa: E402
from audiotag_jax.training.state import create_train_state  # noqa: E402
from audiotag_jax.training.steps import AXIS, pmapped_steps, replicate, step_settings  # noqa: E402
from configs import log_db  # noqa: E402

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
NUM_CLASSES, IMAGE_SHAPE = 41, (224, 224, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnext50_32x4d")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10, help="timed steps, whose median is reported")
    parser.add_argument("--bare", action="store_true", help="leave out augmentation and the input pipeline")
    parser.add_argument("--profile", action="store_true", help="print times by kind of operation, from jax.profiler")
    parser.add_argument("--cpu_devices", type=int, default=1, help="number of devices into which JAX splits a CPU")
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", options.cpu_devices)
    keep_freed_memory()
    device = jax.devices()[0]
    print(f"{options.model}, batches of {options.batch_size}, {device.platform} ({device.device_kind})")
    print(f"JAX {jax.__version__}, {jax.local_device_count()} device(s)")
    reference = time_pytorch(options)
    rows = [("PyTorch", reference, None)] if reference else []
    bare = time_ours(options, augmented=False, feed=None)
    rows.append(("ours, bare step", bare, bare))
    if not options.bare:
        ready = time_ours(options, augmented=True, feed=None)
        rows.append(("ours, bare step, augmented", ready, ready))
        for name, feed in (("the devices", "device"), ("memory by grain", "stream")):
            rows.append((f"ours, fed from {name}, augmented", time_ours(options, augmented=True, feed=feed), ready))
    print(
        "| step | clips a second | times PyTorch | times the bare step alike |", "| --- | --- | --- | --- |", sep="\n"
    )
    for name, speed, alike in rows:
        ratios = [f"{speed / other:.2f}" if other else "" for other in (reference, alike)]
        print(f"| {name} | {speed:.2f} | {' | '.join(ratios)} |")
    if options.profile:
        print_profile(options)


def make_step(options, *, augmented: bool):
    """Returns our training step and its initial state."""
    config = log_db.get_config()
    config.model.name, config.train.batch_size = options.model, options.batch_size
    config.model.dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if not augmented:
        config.augment.max_time_shift = config.augment.mixup_alpha = 0.0
        config.augment.time_masks = config.augment.frequency_masks = 0
    settings = parse_settings(config)
    tx = make_optimizer(settings.optimizer, make_phases(settings.optimizer, 0, settings.training.num_epochs, 100))
    model = settings.model.network(NUM_CLASSES, AXIS)
    train_step, _ = pmapped_steps(step_settings(settings, NUM_CLASSES))
    return train_step, replicate(create_train_state(model, tx, IMAGE_SHAPE, jax.random.key(0)))


def time_ours(options, *, augmented: bool, feed: str | None) -> float:
    """Returns clips a second of our step, on one batch in memory or fed from `device` or `stream`."""
    train_step, state = make_step(options, augmented=augmented)
    examples, num_steps = noise(8 * options.batch_size), options.steps + 3
    resident = feed == "device"
    order = TrainingOrder(np.arange(len(examples)), 8, num_steps, seed=0, fold=0)
    batches = read_ahead(Batches(examples, order, options.batch_size, resident))
    if feed is None:
        batch = replicate_batch(next(batches))
        batches = (batch for _ in range(num_steps))
    data = replicate(resident_data(examples)) if resident else {}
    stop, times = np.zeros(jax.local_device_count(), np.float32), []
    for batch in batches:
        state, metrics = train_step(state, batch | {"stop": stop}, data, jax.random.key(1))
        metrics["health"].block_until_ready()
        times.append(time.perf_counter())
    return options.batch_size / statistics.median(np.diff(times)[2:])


def print_profile(options) -> None:
    """Prints the share of each kind of operation in our bare step, from jax.profiler."""
    train_step, state = make_step(options, augmented=False)
    order = TrainingOrder(np.arange(options.batch_size), 1, 3, seed=0, fold=0)
    batch = replicate_batch(Batches(noise(options.batch_size), order, options.batch_size, resident=False)[0])
    batch |= {"stop": np.zeros(jax.local_device_count(), np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        for step in range(5):
            if step == 2:
                jax.profiler.start_trace(folder, create_perfetto_trace=True)
            state, metrics = train_step(state, batch, {}, jax.random.key(1))
            metrics["health"].block_until_ready()
        jax.profiler.stop_trace()
        [path] = Path(folder).rglob("perfetto_trace.json.gz")
        with gzip.open(path) as file:
            events = json.load(file)["traceEvents"]
    kinds = collections.Counter()
    for event in events:
        if "hlo_op" in event.get("args", {}):  # not the host's events
            kinds[re.sub(r"[._]?(\d+|clone|remat\d*)$", "", event["name"].split(".")[0])] += event["dur"]
    total = sum(kinds.values())
    print("", "| operation | share of the bare step |", "| --- | --- |", sep="\n")
    for kind, duration in kinds.most_common(8):
        print(f"| {kind} | {duration / total:.0%} |")


def replicate_batch(batch):
    return {name: jax.device_put(values) for name, values in batch.items()}


def noise(count: int) -> Examples:
    rng = np.random.default_rng(0)
    images = rng.random((count, *IMAGE_SHAPE), np.float32).astype(np.float16)
    ids = np.array([str(i) for i in range(count)])
    return Examples(ids, images, np.arange(count) % NUM_CLASSES, np.zeros(count, int), np.ones(count, bool))


def time_pytorch(options) -> float | None:
    """Returns clips a second of PyTorch's step; None, printing why, if it is not installed."""
    try:
        import torch

        model = pytorch_small(torch) if options.model == "small" else pytorch_timm(options.model)
    except ImportError as error:
        print(f"no PyTorch step: {error}")
        return None
    torch.set_flush_denormal(True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device, memory_format=torch.channels_last).train()
    images = torch.rand(options.batch_size, 1, *IMAGE_SHAPE[:2], device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(options.batch_size, device=device) % NUM_CLASSES
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, eps=1e-8)
    if device == "cuda":
        model = torch.compile(model)
    times = []
    for _ in range(options.steps + 3):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()
        times.append(time.perf_counter())
    print(f"PyTorch {torch.__version__}, {device}, {torch.get_num_threads()} threads")
    return options.batch_size / statistics.median(np.diff(times)[2:])


def pytorch_timm(name: str):
    """Builds timm's network; EfficientNet-Lite0 by the package `efficientnet-lite-pytorch` if that is installed."""
    if name == "efficientnet_lite0" and importlib.util.find_spec("efficientnet_lite_pytorch"):
        from efficientnet_lite_pytorch import EfficientNet

        return EfficientNet.from_name("efficientnet-lite0", in_channels=1, num_classes=NUM_CLASSES)
    import timm

    names = {"efficientnet_lite0": "tf_efficientnet_lite0"}  # of the padding that TensorFlow's weights expect
    return timm.create_model(names.get(name, name), in_chans=1, num_classes=NUM_CLASSES)


def pytorch_small(torch):
    """Builds our small network with its head, width 24."""
    nn = torch.nn

    def conv(inputs, outputs, size, stride):
        return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.main = nn.Sequential(
                *(conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs), nn.ReLU()),
                *(conv(outputs, outputs, 3, 1), nn.BatchNorm2d(outputs)),
            )
            self.side = nn.Identity()
            if stride > 1 or inputs != outputs:
                self.side = nn.Sequential(nn.AvgPool2d(stride), conv(inputs, outputs, 1, 1), nn.BatchNorm2d(outputs))

        def forward(self, x):
            return torch.relu(self.main(x) + self.side(x))

    class Head(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.layers = nn.Sequential(
                *(nn.BatchNorm1d(2 * channels), nn.Dropout(0.165), nn.Linear(2 * channels, 512), nn.ReLU()),
                *(nn.BatchNorm1d(512), nn.Dropout(0.33), nn.Linear(512, NUM_CLASSES)),
            )

        def forward(self, x):
            return self.layers(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))

    widths = [24, 24, 48, 96, 192]
    stages = [Block(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))]
    return nn.Sequential(conv(1, 24, 7, 4), nn.BatchNorm2d(24), nn.ReLU(), *stages, Head(192))


if __name__ == "__main__":
    main()
