"""What a report states about the networks of a study."""

import types

from audiotag_jax.settings.settings import parse_settings
from audiotag_jax.study.report import describe_data
from configs import log_db


def test_each_network_of_a_study_states_what_its_first_weights_were_trained_on():
    settings = parse_settings(log_db.get_config("esc50_probe"))
    variants = [types.SimpleNamespace(variant=name) for name in ("log_db", "mel_db", "yamnet")]
    results = types.SimpleNamespace(held_out=range(9), classes=("a", "b"), test=None, variants=variants)
    rows = dict(describe_data(settings, results))
    assert rows["network"] == "efficientnet_lite0, from imagenet"
    assert rows["first weights were trained on"].startswith("ImageNet")
    assert rows["network of yamnet"] == "yamnet, width 32, from yamnet"
    assert rows["first weights of yamnet were trained on"].startswith("AudioSet")
    assert not any("mel_db" in name for name in rows)
