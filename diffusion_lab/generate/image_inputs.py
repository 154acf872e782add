"""From what a user types for sampling from images to a `InitialState`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor

from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.generate.initial_state import InitialState, between_inverted, between_noises
from diffusion_lab.pixels import from_bytes, read_picture
from diffusion_lab.sampling.ancestral import DDIMInversion

if TYPE_CHECKING:
    from diffusion_lab.generate.trained_model import Generates

PARTS = ("left", "right", "top", "bottom", "border")
"""Names of what may be known of an image: a half, or all but the middle."""


def read_image(path: str | Path, shape: Sequence[int], key: str = "image") -> Tensor:
    """A picture file as an image of the model's shape, float32 (C, H, W) in [-1, 1].

    The message of what cannot be read begins with `key`.

    Raises:
        ValueError: no such file, no picture, or another size.
    """
    from PIL import UnidentifiedImageError

    channels, height, width = shape
    try:
        pixels = read_picture(Path(path).expanduser(), channels)
    except FileNotFoundError:
        raise ValueError(f"{key}={path}: there is no such file") from None
    except UnidentifiedImageError:
        raise ValueError(f"{key}={path} is no picture that can be read") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{key}={path} is no picture that can be read: {error}") from None
    if pixels.size != (width, height):
        raise ValueError(
            f"{key}={path} has {pixels.width} x {pixels.height} pixels; the model's images have "
            f"{width} x {height}"
        )
    values = torch.frombuffer(bytearray(pixels.tobytes()), dtype=torch.uint8)
    return from_bytes(rearrange(values, "(h w c) -> c h w", h=height, w=width))


def held_out_image(data: Any, number: int) -> Tensor:
    """Image `number` of a data module's test set, float32 (*shape) in [-1, 1].

    Raises:
        ValueError: there are fewer.
    """
    images = data.splits.test
    if not 0 <= number < len(images):
        raise ValueError(f"image=test:{number}: the test set has images 0 .. {len(images) - 1}")
    image, _ = data.on_after_batch_transfer((images[number : number + 1], None), 0)
    return image[0].float()


def known_mask(known: str, shape: Sequence[int]) -> Tensor:
    """Where an image is known, 1 or 0, (1, H, W), from a name of `PARTS` or a picture file.

    Raises:
        ValueError: neither.
    """
    _, height, width = shape
    mask = torch.zeros(1, height, width)
    if known == "left":
        mask[..., : width // 2] = 1
    elif known == "right":
        mask[..., width // 2 :] = 1
    elif known == "top":
        mask[:, : height // 2] = 1
    elif known == "bottom":
        mask[:, height // 2 :] = 1
    elif known == "border":
        mask += 1
        mask[:, height // 4 : height - height // 4, width // 4 : width - width // 4] = 0
    elif Path(known).expanduser().exists():
        return (read_image(known, (1, height, width), "known") > 0).float()
    else:
        raise ValueError(f"known={known} must be one of {', '.join(PARTS)}, or a picture file")
    return mask


def typed_images(
    names: Sequence[str],
    shape: Sequence[int],
    data: Callable[[], Any],
    key: str = "image",
    held_out: Callable[[Any, int], Tensor] = held_out_image,
) -> Tensor:
    """Images named by files or `test:NUMBER`, (number of names, *shape).

    Args:
        names: What was typed, at least one.
        shape: (C, H, W) of the model's images.
        data: Makes the data module, if a test image is asked for.
        key: What was typed, for messages.
        held_out: (data module, number) -> its test image.

    Raises:
        ValueError: a name that gives no image of this shape.
    """
    module: Any = None
    images = []
    for name in names:
        number = re.fullmatch(r"test:(\d+)", name)
        if number is None:
            images.append(read_image(name, shape, key))
            continue
        module = data() if module is None else module
        images.append(held_out(module, int(number[1])))
    return torch.stack(images)


def typed_start(
    model: Generates,
    count: int,
    given: Condition,
    seed: int,
    *,
    images: Tensor | None,
    time: float | None,
    known: str | None,
    interpolate: int,
) -> InitialState | None:
    """Where `count` samples start, or None for noise.

    Args:
        model: What will sample; images are inverted by its own steps.
        count: Samples; with `interpolate`, a multiple of it.
        given: Their conditions, `count` rows.
        seed: Of the noises that are interpolated.
        images: (K, *shape), repeated until all samples have one, or None.
        time: To which the images are noised.
        known: What of them stays.
        interpolate: Pictures on each way, 0 for no way.
    """
    if interpolate and images is None:
        return between_noises(model.diffusion, model.shape, count // interpolate, interpolate, seed)
    if images is None:
        return None
    if not interpolate:
        repeated = images[torch.arange(count) % len(images)]
        return InitialState(
            repeated, time, None if known is None else known_mask(known, model.shape)
        )
    own = model.drawing.sampler
    up = DDIMInversion(None if own is None else own.steps, None if own is None else own.grid)
    inverted = model.sample(
        len(images),
        given=given.rows(torch.tensor([0, -1])),
        sampler=up,
        seed=seed,
        start=InitialState(x=images),
    )
    return between_inverted(inverted, interpolate)
