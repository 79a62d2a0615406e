"""The leaderboard of each test clip of FSDKaggle2018."""

from collections import Counter

import pytest

from audiotag_jax.datasets import fsdkaggle2018  # not its `test_usage`, which pytest would collect
from audiotag_jax.runtime.errors import UserError


def test_counts_of_the_real_table(shared_data):
    root = shared_data / "fsdkaggle2018"
    usage = fsdkaggle2018.test_usage(root)
    assert Counter(usage.values()) == {"Public": 301, "Private": 1299}
    scored = {clip.id for clip in fsdkaggle2018.open_fsdkaggle2018(root).clips if clip.split == "test" and clip.label}
    assert set(usage) == scored


@pytest.mark.parametrize("folder", ["", "FSDKaggle2018.meta"])
@pytest.mark.parametrize("table", fsdkaggle2018.TEST_TABLES)
def test_padding_has_no_usage(tmp_path, folder, table):
    (tmp_path / folder).mkdir(exist_ok=True)
    rows = "a.wav,Bark,Private\nb.wav,Oboe,Public\nc.wav,None,Ignored\nd.wav,Oboe,Ignored\ne.wav,None,Public\n"
    (tmp_path / folder / table).write_text("fname,label,usage\n" + rows)
    assert fsdkaggle2018.test_usage(tmp_path) == {"a.wav": "Private", "b.wav": "Public"}


def test_usage_without_a_table_is_empty(tmp_path):
    (tmp_path / "train.csv").write_text("fname,label,manually_verified\na.wav,Bark,1\n")
    (tmp_path / "sample_submission.csv").write_text("fname,label\nb.wav,Bark\n")
    assert fsdkaggle2018.test_usage(tmp_path) == {}
    assert fsdkaggle2018.test_usage(tmp_path / "nowhere") == {}


def test_a_bad_table_raises(tmp_path):
    (tmp_path / "test_post_competition.csv").write_text("fname,label,usage\na.wav,Bark,Public\na.wav,Oboe,Public\n")
    with pytest.raises(UserError, match="duplicate rows"):
        fsdkaggle2018.test_usage(tmp_path)
