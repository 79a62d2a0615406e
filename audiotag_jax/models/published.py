"""What published weights were trained on: a score on clips that they may have seen is not one on unseen clips."""

# By the name that config.model.pretrained gives the weights, which may be that of their only network.
TRAINED_ON = {
    "imagenet": "ImageNet (ILSVRC 2012): 1.28 million photographs in 1,000 classes, no sound",
    "yamnet": "AudioSet: two million soundtracks of YouTube, 521 related labels; other sources than Freesound's",
}


def trained_on(pretrained: str, network: str) -> str:
    """Returns a line on the training data of weights by name, or by network if they are a file; "" for none."""
    if not pretrained:
        return ""
    unknown = "unknown data (a file of weights), maybe on clips that are held out here"
    return TRAINED_ON.get(pretrained) or TRAINED_ON.get(network, unknown)
