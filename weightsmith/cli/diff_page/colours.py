"""The colours of the heat map: a scale of relative changes, and what each step of it looks like."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from weightsmith.ops.diff_result import Group

STEPS: Final = 50
"""The last step of the scale; the first is 0."""
_RATIO: Final = 1e4
"""How much more the most changed has to change than the least, at most, to differ in colour."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Steps of colour for relative changes: equal ratios are equally many steps apart."""

    low: float
    """The relative change of step 0, and of what changed less."""
    high: float
    """The relative change of the last step."""

    @classmethod
    def of(cls, groups: Iterable[Group]) -> "Scale":
        """A scale on which each of `groups` lies, unless the least lies very far below the most."""
        sizes = [group.measure.relative for group in groups if group.measure.relative]
        high = max(sizes, default=1.0)
        low = max(min(sizes, default=1.0), high / _RATIO)
        widened = max(1.0, math.sqrt(2 * low / high))  # so that what is nearly equal looks so
        return cls(low / widened, high * widened)

    @property
    def middle(self) -> float:
        """The relative change half way between the ends."""
        return math.sqrt(self.low * self.high)

    def step(self, relative: float) -> int:
        """The step of a relative change above 0."""
        at = math.log(relative / self.low) / math.log(self.high / self.low)
        return round(min(max(at, 0.0), 1.0) * STEPS)


def colour(step: int, *, dark: bool) -> str:
    """``"#rrggbb"``: from pale yellow over red to dark purple, or on a dark page the other way
    round, so that what changed most stands out on both.
    """
    t = step / STEPS
    if dark:
        return _srgb(0.30 + 0.63 * t, 0.08 + 0.03 * t + 0.44 * t * (1 - t), -67 + 165 * t)
    return _srgb(0.955 - 0.64 * t, 0.06 + 0.05 * t + 0.48 * t * (1 - t), 98 - 165 * t)


def _srgb(lightness: float, chroma: float, hue: float) -> str:
    """A colour of OKLCH, each channel cut to what a screen shows.

    Source: Ottosson, A perceptual color space for image processing.
    """
    a = chroma * math.cos(math.radians(hue))
    b = chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return "#" + "".join(f"{_encoded(min(max(each, 0.0), 1.0)):02x}" for each in linear)


def _encoded(light: float) -> int:
    """A channel's light as the byte that a screen takes."""
    value = 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055
    return round(255 * value)
