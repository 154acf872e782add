"""Words beside a sheet of images: over its columns, in front of its rows."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from diffusion_lab.figures.grids import BACKGROUND, CAPTION_HEIGHT, INK

SIZE = 11
SPACE = 6


def with_margins(
    picture: Image.Image,
    above: Sequence[tuple[float, str]] = (),
    left: Sequence[tuple[float, str]] = (),
) -> Image.Image:
    """Write words above and to the left of a picture, on margins that are added.

    Args:
        picture: any, in mode "L" or "RGB".
        above: (x of the column's centre, words); where they would touch each other only every
            second, third ... is written.
        left: (y of the row's centre, words).

    Returns:
        A larger picture of the same mode.
    """
    font = ImageFont.load_default(size=SIZE)
    margin = max((round(font.getlength(text)) for _, text in left), default=-2 * SPACE) + 2 * SPACE
    top = CAPTION_HEIGHT if above else 0
    grey = picture.mode == "L"
    size = (picture.width + margin, picture.height + top)
    sheet = Image.new(picture.mode, size, BACKGROUND if grey else (BACKGROUND,) * 3)
    sheet.paste(picture, (margin, top))
    draw = ImageDraw.Draw(sheet)
    ink = INK if grey else (INK,) * 3
    for y, text in left:
        draw.text((margin - SPACE, top + y), text, fill=ink, font=font, anchor="rm")
    for x, text in above[:: _stride(above, font)]:
        draw.text((margin + x, top - 2), text, fill=ink, font=font, anchor="ms")
    return sheet


def _stride(above: Sequence[tuple[float, str]], font: ImageFont.FreeTypeFont) -> int:
    """1 where all words fit beside each other, else the n of every n-th."""
    if len(above) < 2:
        return 1
    widest = max(font.getlength(text) for _, text in above) + SPACE
    return max(1, -int(-widest // (above[1][0] - above[0][0])))


def beside(pictures: Sequence[Image.Image], words: Sequence[str], gap: int = 12) -> Image.Image:
    """Pictures in a row, each with its words above.

    Args:
        pictures: in one mode each, "L" or "RGB"; at least one.
        words: a caption each.
        gap: pixels between two pictures.
    """
    grey = all(picture.mode == "L" for picture in pictures)
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    size = (width, max(picture.height for picture in pictures))
    sheet = Image.new("L" if grey else "RGB", size, BACKGROUND if grey else (BACKGROUND,) * 3)
    above, x = [], 0
    for picture, text in zip(pictures, words, strict=True):
        sheet.paste(picture, (x, 0))
        above.append((x + picture.width / 2, text))
        x += picture.width + gap
    return with_margins(sheet, above)
