"""Sounds and pictures in a page decode to what they were made of, and ticks stand at their frequencies."""

import base64
import io

import numpy as np
import PIL.Image
import pytest
import soundfile

from audiotag_jax.spectral import features
from audiotag_jax.study.media import Media, image_uri, sound_uri
from audiotag_jax.study.pictures import clip_picture, frequency_ticks


def decoded(uri):
    kind, data = uri.split(";base64,")
    return kind, io.BytesIO(base64.b64decode(data))


@pytest.mark.parametrize(("rate_hz", "kind"), [(22050, "data:audio/mpeg"), (10000, "data:audio/wav")])
def test_a_sound_survives(rate_hz, kind):
    if kind.endswith("mpeg") and "MP3" not in soundfile.available_formats():
        pytest.skip("this libsndfile writes no MP3")
    sine = 0.5 * np.sin(2 * np.pi * 1000.0 * np.arange(2 * rate_hz) / rate_hz).astype(np.float32)
    found, file = decoded(sound_uri(sine, rate_hz))
    heard, heard_rate_hz = soundfile.read(file)
    assert found == kind and heard_rate_hz == rate_hz and abs(len(heard) - len(sine)) < 2500
    loudest = np.abs(np.fft.rfft(heard[:rate_hz])).argmax()  # of one second: bins of 1 Hz
    assert loudest == 1000 and np.abs(heard).max() == pytest.approx(0.5, abs=0.05)
    assert sound_uri(sine, rate_hz) == sound_uri(sine, rate_hz)


def test_what_cannot_be_played_is_silence():
    heard, _ = soundfile.read(decoded(sound_uri(np.array([np.nan, np.inf, 0.0, -9.0], np.float32), 10000))[1])
    np.testing.assert_allclose(heard, [0.0, 1.0, 0.0, -1.0], atol=1e-4)


def test_an_image_lies_with_time_to_the_right_and_frequency_upwards():
    image = np.zeros((3, 2, 1), np.float16)  # 3 frames, 2 bins
    image[2, 0] = 1.0  # the last frame, the low bin
    pixels = np.asarray(PIL.Image.open(decoded(image_uri(image))[1]).convert("RGB"))
    assert pixels.shape == (2, 3, 3)
    assert pixels[1, 2].tolist() == [253, 231, 37] and pixels[0, 2].tolist() == [68, 1, 84]  # viridis' ends
    colours = np.zeros((3, 2, 3), np.float16)
    colours[0, 1] = (1.0, 0.0, 0.5)
    pixels = np.asarray(PIL.Image.open(decoded(image_uri(colours))[1]).convert("RGB"))
    np.testing.assert_allclose(pixels[0, 0], [255, 0, 127.5], atol=5)
    assert pixels.sum() == pixels[0, 0].sum()


@pytest.mark.parametrize("channel", ["linear_db", "log_db", "mel_db"])
def test_ticks_stand_at_the_bins_of_their_frequencies(channel):
    axis_hz = features.frequencies_hz(channel, features.SpectralSettings(channels=(channel,)))
    ticks = frequency_ticks(axis_hz, 224.0, 15.0)
    assert len(ticks) >= 5 and 10000 in dict(ticks)
    for hz, down in ticks:
        nearest = 223 - (down - 0.5)  # bin centres lie half a bin inside
        assert abs(nearest - np.abs(axis_hz - hz).argmin()) <= 0.51
    downs = [down for _, down in ticks]
    assert min(-np.diff(downs)) >= 15.0


def test_a_picture_shows_an_axis_for_each_frequency_scale_of_its_channels():
    log, mel = np.geomspace(50.0, 5000.0, 8), np.linspace(10.0, 5000.0, 8)
    images = {"one": {"c": np.zeros((4, 8, 3))}, "two": {"c": np.zeros((4, 8, 3))}}
    media = Media(8000, 1.0, {"c": np.sin(np.arange(8000.0))}, images, {"one": log, "two": np.stack([log, mel, log])})
    drawings = {name: clip_picture(media, name, "c", 'clip "c"') for name in ("one", "two", "waveform")}
    assert ">Hz<" in drawings["one"] and ">green<" not in drawings["one"]
    assert ">green<" in drawings["two"] and "10 to 5000 Hz" in drawings["two"]
    assert "Waveform of clip &#34;c&#34;, 1 s" in drawings["waveform"] and "<image" not in drawings["waveform"]
