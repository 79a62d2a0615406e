"""All fields of a run with their units. A variant file sets the channels, a preset the data set and the budget."""

from ml_collections import ConfigDict


def get_config(preset: str = "fsdkaggle2018") -> ConfigDict:
    """Returns the configuration of `preset`. Raises ValueError, listing the presets, on an unknown one."""
    if preset not in PRESETS:
        raise ValueError(f"Unknown preset {preset!r}; choose from {', '.join(PRESETS)}.")
    config = ConfigDict()
    config.name = "log_db"  # of the variant; part of the default work directory's name
    config.preset = preset
    config.seed = 0  # of parameter initialization, clip order, augmentation and dropout
    config.dataset = _dataset_fields()
    config.spectral = _spectral_fields()
    config.model = _model_fields()
    config.train = _train_fields()
    config.optimizer = _optimizer_fields()
    config.augment = _augment_fields()
    config.study = _study_fields()
    PRESETS[preset](config)
    return config


def _dataset_fields() -> ConfigDict:
    """Returns the fields of the clips and of the input pipeline."""
    dataset = ConfigDict()
    # fsdkaggle2018, fsdkaggle2019, fsd50k, audioset, urbansound8k, esc50, esc10, folder or demo
    dataset.source = "fsdkaggle2018"
    dataset.path = "data/fsdkaggle2018"  # folder of the recordings and tables
    dataset.table = ""  # CSV table of clips for source "folder"; empty: one subfolder per label
    dataset.label_separator = ""  # between the labels of a row of the table, such as ","; empty: one label a clip
    dataset.download = True  # download FSDKaggle2018 or UrbanSound8K from Zenodo if the folder is missing
    dataset.prepared_dir = "prepared"  # folder of the TFDS datasets
    dataset.num_threads = 0  # decoding threads; 0: one per core
    dataset.sample_rate_hz = 22050
    dataset.duration_s = 2.0  # crop of each clip, centred on its loudest half second
    dataset.num_folds = 5  # for sources without folds of their own
    dataset.fold_seed = 0  # for assigning these folds; of the demo also of its sounds
    dataset.input = "auto"  # inputs are kept in device memory (device), read from disk (stream), or auto: by size
    dataset.num_workers = 0  # reader processes of input stream; 0: threads of this process
    dataset.on_the_fly = False  # compute spectrograms from the clips in each training step
    dataset.margin_s = 0.0  # on the fly: extra length of the clips, for random crops in training
    dataset.beam_runner = ""  # prepare by Apache Beam: DirectRunner, FlinkRunner, …; empty: by this process
    dataset.beam_options = ""  # of that runner, as on its command line
    return dataset


def _spectral_fields() -> ConfigDict:
    """Returns the fields of the spectrograms."""
    spectral = ConfigDict()
    spectral.channels = ("log_db",)  # AXIS_SCALE (linear, log, mel; linear, db), hires_q1, …; or yamnet
    spectral.num_frames = 224
    spectral.num_bins = 224
    spectral.range_db = 80.0  # below the clip's own maximum
    spectral.window_samples = 2048  # Hann window
    spectral.fft_samples = 2048
    spectral.stride = 8.0  # hires channels are sampled at one point in so many; 1: exact, as published
    spectral.upper_q = 0.0  # of hires channels from upper_from_hz up; 0: the channel's own q everywhere
    spectral.upper_from_hz = 1000.0
    spectral.per_hz = False  # hires energies over the width of their bin, as the bands of the other variants
    spectral.smoothing_cells = 0.0  # of hires energies: standard deviation of a Gaussian filter in frames and bins
    return spectral


def _model_fields() -> ConfigDict:
    """Returns the fields of the network."""
    model = ConfigDict()
    # small, waveform, resnet18, resnet34, resnet50, resnext50_32x4d, efficientnet_lite0 or yamnet
    model.name = "resnext50_32x4d"
    model.width = 24  # channels of the first stage of "small" and "yamnet", half those of "waveform"
    model.dropout = 0.33  # rate before the head's last layer; half of it before the hidden layer
    model.dtype = "float32"  # of the activations: float32 or bfloat16
    model.pretrained = ""  # weights of the body: a .safetensors, .pth or .h5 file, or imagenet or yamnet (published)
    model.init_from = ""  # checkpoint of another run for body and, if it fits, head; {fold}: the fold's number
    model.normalization = "none"  # of images in [0, 1]: none, or what the body's weights expect: imagenet or yamnet
    return model


def _train_fields() -> ConfigDict:
    """Returns the fields of training: budget, folds, logging and checkpoints."""
    train = ConfigDict()
    train.batch_size = 64  # clips over all devices
    train.frozen_epochs = 0  # first phase: the body's convolutions are frozen, its batch norms and the head train
    train.num_epochs = 40  # second phase: all parameters train
    train.folds = ()  # folds to hold out in turn; empty: all
    train.inner_split = False  # to choose settings: exclude the held-out fold, validate on the next one
    train.log_every_steps = 10  # interval of lines in metrics.jsonl
    train.evaluate_every_epochs = 0  # validation scores in metrics.jsonl; 0: only after the last epoch
    train.checkpoint_every_epochs = 1
    train.unverified_weight = 1.0  # loss weight of clips with unverified labels
    train.loss = "cross_entropy"  # or focal (easy clips count less) or lq (noisy labels count less)
    train.focal_gamma = 2.0  # of loss focal: (1 - p)^gamma times the cross-entropy
    train.lq_exponent = 0.7  # of loss lq: (1 - p^q) / q; near 0 it is the cross-entropy
    train.class_weights = "none"  # weights of classes in the loss: none, or balanced: inversely to their clips
    train.sampling = "uniform"  # every clip once an epoch, or balanced: every class as often, by drawing clips again
    train.verified_epochs = 0  # so many epochs at the start draw from clips with verified labels alone
    train.compilation_cache = True  # on GPU and TPU, cache compiled steps in dataset.prepared_dir
    train.profile_steps = 0  # number of steps, after the first ten, to profile to WORKDIR/profile
    train.probe = False  # train only a linear classifier, on frozen features: no epochs, augmentation or dropout
    train.probe_power = 0.5  # exponent of a probe's pooled features, sign kept; below 1, rare strong ones weigh less
    train.probe_pooling = "mean"  # of a probe's features over their positions: mean, mean_std or mean_max
    return train


def _optimizer_fields() -> ConfigDict:
    """Returns the fields of AdamW and its one-cycle schedules."""
    optimizer = ConfigDict()
    optimizer.frozen_learning_rate = 3e-3  # one-cycle peak of the frozen phase
    optimizer.learning_rate_low = 1e-3  # one-cycle peak of the early stages; late ones have the geometric mean
    optimizer.learning_rate_high = 3e-3  # one-cycle peak of the head
    optimizer.warmup_fraction = 0.25  # share of a phase in which the rate rises and the momentum falls
    optimizer.start_divisor = 25.0  # peak rate / initial rate
    optimizer.end_divisor = 1e5  # peak rate / final rate
    optimizer.momentum_high = 0.95  # Adam's beta1 at both ends of a phase
    optimizer.momentum_low = 0.85  # Adam's beta1 at the peak rate
    optimizer.beta2 = 0.99
    optimizer.epsilon = 1e-8
    optimizer.weight_decay = 0.01  # decoupled
    optimizer.label_smoothing = 0.0  # share of the target spread over all classes
    optimizer.probe_penalty = 30.0  # L2 penalty of a probe's weights: 1 / C of scikit-learn's LogisticRegression
    return optimizer


def _augment_fields() -> ConfigDict:
    """Returns the fields of the augmentation in training steps; all off by default."""
    augment = ConfigDict()
    augment.max_time_stretch = 0.0  # largest change of speed: 0.25 means factors of 0.8 to 1.25
    augment.max_frequency_shift = 0.0  # largest shift along frequency, as a share of the bins
    augment.max_time_shift = 0.0  # largest circular shift, as a share of the frames
    augment.time_masks = 0  # SpecAugment: number of masks along time
    augment.max_time_mask = 0.1  # largest mask, as a share of the frames
    augment.frequency_masks = 0  # SpecAugment: number of masks along frequency
    augment.max_frequency_mask = 0.1  # largest mask, as a share of the bins
    augment.mixup_alpha = 0.0  # of the Beta distribution of the mixing weight; 0: no mixup
    augment.max_gain_db = 0.0  # largest change of a clip's level, up or down; 0: none
    return augment


def _study_fields() -> ConfigDict:
    """Returns the fields of mode study: variants, seeds and the search of learning rates."""
    study = ConfigDict()
    study.variants = ()  # names of files in configs, plus the baseline; empty: all but yamnet
    study.baseline = "log_db"  # the variant that the others are compared with
    study.seeds = (0,)  # config.seed of each variant's runs
    study.rate_factors = (0.5, 1.0, 2.0)  # multiples of the learning rates (of a probe: of its penalty), tried per
    # variant and fold on inner splits
    study.search_epochs = 10  # train.num_epochs of such a trial; train.frozen_epochs come first
    study.score = ""  # that the report begins with, such as "accuracy"; empty: the first that is informative
    study.datasets = ""  # TOML file of data sets: the same study on each, and on all together
    study.margin = 0.01  # of equivalence: the largest difference in accuracy that counts as none
    study.train = True  # False: only report on the finished runs
    return study


def _imagenet(config: ConfigDict) -> None:
    """Sets the recipe of the earlier study: FSDKaggle2018 with ImageNet weights."""
    config.model.pretrained = "imagenet"
    config.model.normalization = "imagenet"
    config.train.frozen_epochs = 5
    config.train.num_epochs = 10
    config.optimizer.frozen_learning_rate = 3e-3
    config.optimizer.learning_rate_low = 6e-4
    config.optimizer.learning_rate_high = 6e-2


def _augment(config: ConfigDict) -> None:
    """Sets the augmentation of networks with random initial weights."""
    config.augment.max_time_stretch = 0.25
    config.augment.max_frequency_shift = 0.05
    config.augment.max_time_shift = 0.5
    config.augment.time_masks = 1
    config.augment.frequency_masks = 1
    config.augment.mixup_alpha = 0.3


def _fsdkaggle2019(config: ConfigDict) -> None:
    _augment(config)
    config.dataset.source = "fsdkaggle2019"
    config.dataset.path = "data/fsdkaggle2019"
    config.dataset.download = False


def _fsd50k(config: ConfigDict) -> None:
    """Sets the official split: one training, scored on the validation part and on the evaluation set."""
    _augment(config)
    config.dataset.source = "fsd50k"
    config.dataset.path = "data/FSD50K"
    config.dataset.download = False
    config.train.folds = (1,)


def _audioset(config: ConfigDict) -> None:
    _augment(config)
    config.dataset.source = "audioset"
    config.dataset.path = "data/audioset"
    config.dataset.duration_s = 10.0  # the whole segment
    config.dataset.download = False


def _small(config: ConfigDict) -> None:
    """Sets the small network; its learning rates were chosen on synthetic sounds."""
    config.model.name = "small"
    config.optimizer.learning_rate_low = 3e-3
    config.optimizer.learning_rate_high = 1e-2
    config.train.batch_size = 32
    config.train.evaluate_every_epochs = 5  # such data is small, so that this costs little


def _esc(config: ConfigDict) -> None:
    _augment(config)
    _small(config)
    config.dataset.duration_s = 5.0  # the whole recording
    config.dataset.download = False
    config.train.checkpoint_every_epochs = 5


def _esc50(config: ConfigDict) -> None:
    _esc(config)
    config.dataset.source = "esc50"
    config.dataset.path = "data/ESC-50"
    config.train.batch_size = 64
    config.train.num_epochs = 60


def _esc50_probe(config: ConfigDict) -> None:
    """Sets a probe of EfficientNet-Lite0; another variant of a probe sets its own network."""
    _esc50(config)
    _probe(config)


def _probe(config: ConfigDict) -> None:
    config.augment = _augment_fields()
    config.model.name = "efficientnet_lite0"
    config.model.pretrained = config.model.normalization = "imagenet"
    config.train.probe = True
    config.study.rate_factors = (0.1, 0.3, 1.0, 3.0, 10.0)


def _esc10(config: ConfigDict) -> None:
    _esc(config)
    config.dataset.source = "esc10"
    config.dataset.path = "data/ESC-50"


def _urbansound8k(config: ConfigDict) -> None:
    _augment(config)
    _small(config)
    config.dataset.source = "urbansound8k"
    config.dataset.path = "data/UrbanSound8K"
    config.dataset.duration_s = 4.0  # the longest clips
    config.train.batch_size = 64


def _folder(config: ConfigDict) -> None:
    _augment(config)
    _small(config)
    config.dataset.source = "folder"
    config.dataset.path = "data/folder"


def _demo(config: ConfigDict) -> None:
    _small(config)
    config.dataset.source = "demo"
    config.dataset.path = "data/demo"
    config.dataset.num_folds = 3
    config.model.width = 16
    config.train.num_epochs = 18
    config.train.batch_size = 16
    # Above these rates the weights change faster than batch norm's running statistics, which validation takes.
    config.optimizer.learning_rate_low = 1e-3
    config.optimizer.learning_rate_high = 3e-3
    config.augment.max_time_shift = 0.5
    config.augment.frequency_masks = 1
    config.train.checkpoint_every_epochs = 5
    config.study.rate_factors = (1.0,)  # no search, to stay short
    config.study.search_epochs = 4


def _finetune(config: ConfigDict) -> None:
    """Sets the recipe of the earlier study, and a network that a CPU can fine-tune; the augmentation stays."""
    _imagenet(config)
    config.model.name = "efficientnet_lite0"
    config.train.batch_size = 32
    config.optimizer.learning_rate_low = 1e-4  # batches are half as large as those of the study, and steps are few
    config.optimizer.learning_rate_high = 1e-2


def _esc50_finetune(config: ConfigDict) -> None:
    _esc50(config)
    _finetune(config)


def _folder_finetune(config: ConfigDict) -> None:
    _folder(config)
    _finetune(config)
    config.train.batch_size = 16
    config.train.num_epochs = 20


def _folder_probe(config: ConfigDict) -> None:
    _folder(config)
    _probe(config)


# A line each for --help.
PRESET_LINES = {
    "fsdkaggle2018": "FSDKaggle2018, 41 classes: ResNeXt-50 from random weights (the default)",
    "imagenet": "FSDKaggle2018: ResNeXt-50 from ImageNet's weights",
    "fsdkaggle2019": "FSDKaggle2019, 80 classes, several a clip: ResNeXt-50 from random weights",
    "fsd50k": "FSD50K, 200 classes, several a clip, its official split: ResNeXt-50 from random weights",
    "audioset": "AudioSet, 527 classes, several a clip, of your own clips of it: ResNeXt-50 from random weights",
    "urbansound8k": "UrbanSound8K, 10 classes, 10 folds: the small network from random weights",
    "esc50": "ESC-50, 50 classes: the small network from random weights",
    "esc10": "ESC-10, 10 classes: the small network from random weights",
    "folder": "your own recordings: the small network from random weights",
    "demo": "synthetic sounds, made on the spot: a very small network, for a minute",
    "esc50_probe": "ESC-50: a linear classifier on frozen features of a pretrained network",
    "esc50_finetune": "ESC-50: EfficientNet-Lite0 from ImageNet's weights",
    "folder_finetune": "your own recordings: EfficientNet-Lite0 from ImageNet's weights",
    "folder_probe": "your own recordings: a linear classifier on frozen features; seconds, for few recordings",
}
PRESETS = {
    "fsdkaggle2018": _augment,
    "imagenet": _imagenet,
    "fsdkaggle2019": _fsdkaggle2019,
    "fsd50k": _fsd50k,
    "audioset": _audioset,
    "urbansound8k": _urbansound8k,
    "esc50": _esc50,
    "esc10": _esc10,
    "folder": _folder,
    "demo": _demo,
    "esc50_probe": _esc50_probe,
    "esc50_finetune": _esc50_finetune,
    "folder_finetune": _folder_finetune,
    "folder_probe": _folder_probe,
}
