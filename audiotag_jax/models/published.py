"""What published weights were trained on: a score on clips that they may have seen is not one on unseen clips."""

# By the name that config.model.pretrained gives the weights.
TRAINED_ON = {
    "imagenet": "ImageNet (ILSVRC 2012): 1.28 million photographs in 1,000 classes, no sound",
}


def trained_on(pretrained: str) -> str:
    """Returns a line on the training data of weights by name, or of a file, whose data are unknown; "" for none."""
    if not pretrained:
        return ""
    return TRAINED_ON.get(pretrained, "unknown: a file of weights; it may have seen clips that are held out here")
