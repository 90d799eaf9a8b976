"""An episode as a moving picture: the screen at left, and at right what the chosen action was thought to be worth."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ..episode import Episode, Shot

VIDEO = "video.webp"
"""In a run's directory."""
_HEIGHT, _SCREEN, _CHART = 336, 280, 360
_LEFT, _RIGHT, _TOP, _FLOOR = 16, 16, 96, 296
_INK, _FAINT, _BAR, _MEAN = (240, 240, 240), (150, 150, 150), (110, 160, 230), (250, 180, 70)
_GROUND = (24, 26, 30)
_QUALITY = 70


class PillowMissing(ValueError):
    """Videos need Pillow."""


def _pillow() -> tuple[Any, Any, Any]:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise PillowMissing("a video needs Pillow, which is not installed: pip install isogon[video]") from error
    return Image, ImageDraw, ImageFont


def encode_video(episode: Episode) -> bytes:
    """The episode as an animated WebP, which browsers show, at the game's own speed.

    Raises:
        PillowMissing: it is not installed.
    """
    frames = [draw_shot(episode, shot) for shot in episode.shots]
    milliseconds = max(20, round(1000 * episode.seconds * episode.every))
    file = io.BytesIO()
    # The last picture stays for a while before it all begins anew.
    durations = [milliseconds] * (len(frames) - 1) + [2000]
    frames[0].save(
        file, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=_QUALITY, method=3
    )
    return file.getvalue()


def draw_shot(episode: Episode, shot: Shot) -> Any:
    """One picture, a ``PIL.Image``.

    A bar for each bin, as high as its probability, all as high together as the likeliest needs; a line at the value.
    The axis reaches over the bins that are ever likely.
    """
    image_of, drawing_of, fonts = _pillow()
    picture = image_of.new("RGB", (_SCREEN + _CHART, _HEIGHT), _GROUND)
    screen = image_of.fromarray(shot.screen)
    scale = min(_SCREEN / screen.width, _HEIGHT / screen.height)
    size = (round(screen.width * scale), round(screen.height * scale))
    picture.paste(
        screen.resize(size, image_of.Resampling.NEAREST), ((_SCREEN - size[0]) // 2, (_HEIGHT - size[1]) // 2)
    )
    draw, font, small = drawing_of.Draw(picture), fonts.load_default(16), fonts.load_default(12)
    left = _SCREEN + _LEFT
    draw.text((left, 14), f"{episode.game}: return {shot.total:g}", fill=_INK, font=font)
    draw.text((left, 38), f"step {shot.step:,} of {episode.length:,}, action {shot.action}", fill=_FAINT, font=small)
    draw.text((left, 60), f"value {shot.value:.2f}", fill=_MEAN, font=font)
    low, high = axis_of(episode)

    def across(value: float) -> float:
        share = (value - low) / (high - low)
        return _SCREEN + _LEFT + min(max(share, 0.0), 1.0) * (_CHART - _LEFT - _RIGHT)

    if shot.probabilities is not None and episode.edges is not None:
        tallest = float(shot.probabilities.max())
        for probability, one, other in zip(shot.probabilities, episode.edges, episode.edges[1:], strict=False):
            if other > low and one < high:
                top = _FLOOR - (_FLOOR - _TOP) * float(probability) / tallest
                draw.rectangle((across(one) + 0.5, top, max(across(other) - 0.5, across(one) + 0.5), _FLOOR), fill=_BAR)
    draw.line((across(low), _FLOOR, across(high), _FLOOR), fill=_FAINT)
    draw.line((across(shot.value), _TOP - 6, across(shot.value), _FLOOR), fill=_MEAN, width=2)
    for value in (low, (low + high) / 2, high):
        draw.text((across(value), _FLOOR + 6), f"{value:.3g}", fill=_FAINT, font=small, anchor="ma")
    return picture


def axis_of(episode: Episode) -> tuple[float, float]:
    """Ends of the value axis: the bins that somewhere have more than a hundredth, or else the values."""
    values = [shot.value for shot in episode.shots]
    low, high = min(values), max(values)
    if episode.edges is not None:
        likely = np.flatnonzero(
            np.max([shot.probabilities for shot in episode.shots if shot.probabilities is not None], axis=0) > 0.01
        )
        low, high = float(episode.edges[likely[0]]), float(episode.edges[likely[-1] + 1])
    return (low, high) if high > low else (low - 1.0, high + 1.0)
