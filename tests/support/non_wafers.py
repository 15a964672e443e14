"""Pictures that are not of wafer maps, of five kinds, for tests and benchmarks; many try to look like one."""

import io
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Picture = Callable[[np.random.Generator], Image.Image]
Colour = tuple[int, int, int]


def _colour(rng: np.random.Generator) -> Colour:
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue


def _two_colours(rng: np.random.Generator) -> tuple[Colour, Colour]:
    for _ in range(50):
        back, front = _colour(rng), _colour(rng)
        if math.dist(back, front) > 120:
            return back, front
    return (255, 255, 255), (0, 0, 0)


def _side(rng: np.random.Generator) -> int:
    return int(rng.choice([64, 96, 100, 128, 150, 200, 224, 256, 300, 512]))


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _words(rng: np.random.Generator, count: int) -> str:
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ("".join(rng.choice(list(letters), int(rng.integers(2, 9)))) for _ in range(count))
    return " ".join(words)


def _antialiased(draw: Callable[[ImageDraw.ImageDraw, int], None], side: int, back: Colour, times: int) -> Image.Image:
    image = Image.new("RGB", (side * times, side * times), back)
    draw(ImageDraw.Draw(image), side * times)
    return image.resize((side, side), Image.Resampling.LANCZOS) if times > 1 else image


# -- photos: many colours, soft shading, noise, vignettes ------------------------------------------------------------


def _noise(rng: np.random.Generator, height: int, width: int, roughness: float) -> NDArray[np.float64]:
    """Noise whose spectrum falls as in natural pictures (amplitude ~ 1/f**roughness), 0..1."""
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    fall = np.maximum(np.hypot(y, x), 1 / max(height, width)) ** -roughness
    field = np.fft.irfft2(fall * np.exp(2j * np.pi * rng.random(fall.shape)), (height, width))
    return np.asarray((field - field.min()) / (np.ptp(field) or 1))


def _scenery(rng: np.random.Generator) -> Image.Image:
    height, width = _side(rng), _side(rng)
    base = _noise(rng, height, width, rng.uniform(0.8, 2.0))
    tint = np.array(_colour(rng)) / 255
    pixels = base[..., None] * (0.4 + 0.6 * tint) + 0.15 * np.dstack(
        [_noise(rng, height, width, 1.2) for _ in range(3)]
    )
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    if rng.random() < 0.5:
        pixels *= np.clip(1.3 - rng.uniform(0.4, 1.2) * (x**2 + y**2), 0, 1)[..., None]
    return Image.fromarray((np.clip(pixels / pixels.max(), 0, 1) * 255).astype(np.uint8))


def _round_vignette(rng: np.random.Generator) -> Image.Image:
    """As through a microscope: a bright textured disc on black."""
    side = _side(rng)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    base = _noise(rng, side, side, rng.uniform(0.6, 1.8)) * (x**2 + y**2 < rng.uniform(0.7, 1.0))
    pixels = np.dstack([base * factor for factor in rng.uniform(0.5, 1, 3)])
    return Image.fromarray((pixels * 255).astype(np.uint8))


def _shaded_ball(rng: np.random.Generator) -> Image.Image:
    side = _side(rng)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    light = np.clip(1.1 - np.hypot(x - rng.uniform(-0.4, 0.4), y - rng.uniform(-0.4, 0.4)), 0, 1)
    back, front = _two_colours(rng)
    inside = (x**2 + y**2 < 0.9)[..., None]
    pixels = np.where(inside, light[..., None] * np.array(front), np.array(back))
    return Image.fromarray(np.clip(pixels + rng.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8))


def _night_sky(rng: np.random.Generator) -> Image.Image:
    side = _side(rng)
    pixels = rng.normal(12, 5, (side, side))
    for _ in range(int(rng.integers(20, 200))):
        y, x = rng.integers(1, side - 1, 2)
        pixels[y - 1 : y + 2, x - 1 : x + 2] += rng.uniform(20, 200) * np.array([[0.2, 0.5, 0.2]] * 3)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _portrait(rng: np.random.Generator) -> Image.Image:
    side = _side(rng)
    image = Image.new("RGB", (side, side), _colour(rng))
    draw = ImageDraw.Draw(image)
    skin = _colour(rng)
    draw.ellipse((side * 0.2, side * 0.1, side * 0.8, side * 0.9), fill=skin)
    for eye in (0.35, 0.55):
        draw.ellipse((side * eye, side * 0.35, side * (eye + 0.1), side * 0.42), fill=_colour(rng))
    image = image.filter(ImageFilter.GaussianBlur(side / 40))
    pixels = np.asarray(image, np.float64) * (0.7 + 0.5 * _noise(rng, side, side, 1.2))[..., None]
    return Image.fromarray(np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8))


# -- logos: a few flat colours, smooth outlines ----------------------------------------------------------------------


def _star(middle: float, radius: float, points: int, inner: float, turn: float) -> list[tuple[float, float]]:
    angles = (turn + math.pi * k / points for k in range(2 * points))
    return [
        (middle + r * math.cos(a), middle + r * math.sin(a))
        for a, r in zip(angles, [radius, radius * inner] * points, strict=True)
    ]


def _logo(rng: np.random.Generator) -> Image.Image:
    """Return a sign, mostly a disc or a ring, in one colour on another, with a letter, a star or dots cut out."""
    back, front = _two_colours(rng)
    third = _colour(rng) if rng.random() < 0.3 else back
    side = _side(rng)
    frame, sign = int(rng.integers(0, 5)), int(rng.integers(0, 7))
    margin, turn, points = rng.uniform(0, 0.15), rng.uniform(0, 6), int(rng.integers(3, 9))
    letter = chr(int(rng.integers(65, 91)))
    dots = rng.uniform(0.25, 0.75, (points, 2))

    def draw(pen: ImageDraw.ImageDraw, size: int) -> None:
        box = (size * margin, size * margin, size * (1 - margin) - 1, size * (1 - margin) - 1)
        cut: Colour = third
        if frame == 0:
            pen.ellipse(box, fill=front)
        elif frame == 1:
            pen.rounded_rectangle(box, radius=size * 0.2, fill=front)
        elif frame == 2:
            pen.ellipse(box, outline=front, width=max(1, int(size * 0.08)))
            cut = front
        elif frame == 3:
            pen.polygon(_star(size / 2, size * (0.5 - margin), 3, 0.87, turn), fill=front)
        else:
            cut = front
        middle = size / 2
        if sign == 0:
            pen.text((middle, middle), letter, fill=cut, anchor="mm", font=_font(size * 0.5))
        elif sign == 1:
            pen.polygon(_star(middle, size * 0.3, points, 0.4, turn), fill=cut)
        elif sign == 2:
            for x, y in dots * size:
                pen.ellipse((x - size * 0.05, y - size * 0.05, x + size * 0.05, y + size * 0.05), fill=cut)
        elif sign == 3:
            pen.ellipse((size * 0.3, size * 0.3, size * 0.7, size * 0.7), fill=cut)
        elif sign == 4:
            pen.pieslice((size * 0.2, size * 0.2, size * 0.8, size * 0.8), turn * 60, turn * 60 + 250, fill=cut)
        elif sign == 5:
            pen.line(
                (size * 0.25, size * 0.5, size * 0.45, size * 0.7, size * 0.75, size * 0.3), fill=cut, width=size // 12
            )

    return _antialiased(draw, side, back, int(rng.choice([1, 1, 4])))


def _plain_shape(rng: np.random.Generator) -> Image.Image:
    back, front = _two_colours(rng)
    side = _side(rng)
    kind = int(rng.integers(0, 5))
    margin = rng.uniform(0, 0.2)

    def draw(pen: ImageDraw.ImageDraw, size: int) -> None:
        box = (size * margin, size * margin, size * (1 - margin) - 1, size * (1 - margin) - 1)
        if kind == 0:
            pen.ellipse(box, fill=front)
        elif kind == 1:
            pen.rectangle(box, fill=front)
        elif kind == 2:
            pen.ellipse(box, outline=front, width=max(1, size // 9))
        elif kind == 3:
            pen.regular_polygon((size / 2, size / 2, size * (0.5 - margin)), int(rng.integers(3, 9)), fill=front)

    return _antialiased(draw, side, back, int(rng.choice([1, 4])))


def _pixel_art(rng: np.random.Generator) -> Image.Image:
    """Return a sprite of a few large pixels, mirrored left to right."""
    back, front = _two_colours(rng)
    half = rng.random((12, 6)) < 0.45
    sprite = np.pad(np.hstack([half, half[:, ::-1]]), 2)
    pixels = np.array([back, front], np.uint8)[sprite.astype(np.uint8)]
    times = int(rng.integers(4, 17))
    return Image.fromarray(pixels.repeat(times, 0).repeat(times, 1))


def _two_dimensional_code(rng: np.random.Generator) -> Image.Image:
    side = int(rng.choice([21, 25, 29, 33, 37]))
    code = rng.random((side, side)) < 0.5
    finder = np.ones((8, 8), bool)
    finder[:7, :7] = False
    finder[1:6, 1:6] = True
    finder[2:5, 2:5] = False
    code[:8, :8], code[:8, -8:], code[-8:, :8] = finder, finder[:, ::-1], finder[::-1]
    times, quiet = int(rng.integers(1, 9)), int(rng.choice([0, 2, 4]))
    pixels = np.pad(code.astype(np.uint8) * 255, quiet, constant_values=255)
    return Image.fromarray(pixels.repeat(times, 0).repeat(times, 1))


def _checkerboard(rng: np.random.Generator) -> Image.Image:
    back, front = _two_colours(rng)
    cells, times = int(rng.integers(4, 40)), int(rng.integers(1, 20))
    board = np.indices((cells, cells)).sum(axis=0) % 2
    return Image.fromarray(np.array([back, front], np.uint8)[board].repeat(times, 0).repeat(times, 1))


# -- charts ----------------------------------------------------------------------------------------------------------


def _axes(pen: ImageDraw.ImageDraw, width: int, height: int, rng: np.random.Generator) -> None:
    pen.line((30, 10, 30, height - 25, width - 10, height - 25), fill=(0, 0, 0))
    for k in range(5):
        y = 10 + k * (height - 35) / 4
        pen.line((26, y, 30, y), fill=(0, 0, 0))
        pen.text((2, y - 5), str(int(rng.integers(0, 100))), fill=(0, 0, 0), font=_font(10))


def _bars(rng: np.random.Generator) -> Image.Image:
    width, height = _side(rng) + 60, _side(rng) + 60
    image = Image.new("RGB", (width, height), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    _axes(pen, width, height, rng)
    bars = int(rng.integers(3, 15))
    step, colour = (width - 45) / bars, _colour(rng)
    for k in range(bars):
        top = rng.uniform(15, height - 30)
        pen.rectangle((35 + k * step, top, 35 + (k + 0.7) * step, height - 26), fill=colour)
    return image


def _lines(rng: np.random.Generator) -> Image.Image:
    width, height = _side(rng) + 60, _side(rng) + 60
    image = Image.new("RGB", (width, height), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    _axes(pen, width, height, rng)
    x = np.linspace(32, width - 12, 50)
    for _ in range(int(rng.integers(1, 5))):
        y = height / 2 + np.cumsum(rng.normal(0, height / 30, 50))
        pen.line(list(zip(x.tolist(), np.clip(y, 10, height - 26).tolist(), strict=True)), fill=_colour(rng), width=2)
    return image


def _scatter(rng: np.random.Generator) -> Image.Image:
    side = _side(rng) + 60
    image = Image.new("RGB", (side, side), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    if rng.random() < 0.7:
        _axes(pen, side, side, rng)
    colour, radius = _colour(rng), rng.uniform(0.5, 4)
    for x, y in np.clip(rng.normal(0.5, 0.18, (int(rng.integers(10, 300)), 2)), 0.05, 0.95) * side:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image


def _pie(rng: np.random.Generator) -> Image.Image:
    side, slices = _side(rng), int(rng.integers(2, 7))
    ends = np.concatenate([[0], np.cumsum(rng.dirichlet(np.ones(slices))) * 360])
    colours = [_colour(rng) for _ in range(slices)]
    hole, turn = rng.random() < 0.4, rng.uniform(0, 360)

    def draw(pen: ImageDraw.ImageDraw, size: int) -> None:
        for k, colour in enumerate(colours):
            pen.pieslice((1, 1, size - 2, size - 2), turn + ends[k], turn + ends[k + 1], fill=colour)
        if hole:
            pen.ellipse((size * 0.3, size * 0.3, size * 0.7, size * 0.7), fill=(255, 255, 255))

    return _antialiased(draw, side, (255, 255, 255), int(rng.choice([1, 4])))


def _heat_map(rng: np.random.Generator) -> Image.Image:
    """Return a matrix of shaded cells, of a correlation for example; sometimes with only three levels."""
    cells, times = int(rng.integers(5, 40)), int(rng.integers(4, 20))
    values = rng.random((cells, cells)) if rng.random() < 0.5 else _noise(rng, cells, cells, 1.0)
    if rng.random() < 0.4:
        values = np.round(values * 2) / 2
    back, front = (np.array(colour) for colour in _two_colours(rng))
    pixels = (back + (front - back) * values[..., None]).astype(np.uint8).repeat(times, 0).repeat(times, 1)
    if rng.random() < 0.6:
        margin = int(rng.integers(5, 40))
        pixels = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), constant_values=255)
    return Image.fromarray(pixels)


def _gauge(rng: np.random.Generator) -> Image.Image:
    side, share = _side(rng), rng.uniform(10, 350)
    colour = _colour(rng)

    def draw(pen: ImageDraw.ImageDraw, size: int) -> None:
        box = (size * 0.05, size * 0.05, size * 0.95, size * 0.95)
        pen.arc(box, 0, 360, fill=(220, 220, 220), width=size // 8)
        pen.arc(box, -90, share - 90, fill=colour, width=size // 8)
        pen.text((size / 2, size / 2), f"{share / 3.6:.0f}%", fill=(40, 40, 40), anchor="mm", font=_font(size / 5))

    return _antialiased(draw, side, (255, 255, 255), int(rng.choice([1, 4])))


# -- screenshots -----------------------------------------------------------------------------------------------------


def _window(rng: np.random.Generator) -> Image.Image:
    width, height = _side(rng) + 100, _side(rng) + 100
    image = Image.new("RGB", (width, height), _colour(rng))
    pen = ImageDraw.Draw(image)
    pen.rectangle((10, 10, width - 10, height - 10), fill=(245, 245, 245), outline=(90, 90, 90))
    pen.rectangle((10, 10, width - 10, 30), fill=_colour(rng))
    pen.text((16, 13), _words(rng, 3), fill=(255, 255, 255), font=_font(12))
    for k in range(int(rng.integers(2, 8))):
        y = 40 + k * 24
        pen.rectangle((20, y, 20 + int(rng.integers(40, 90)), y + 18), fill=_colour(rng), outline=(60, 60, 60))
        pen.text((120, y + 2), _words(rng, 2), fill=(20, 20, 20), font=_font(11))
    return image


def _terminal(rng: np.random.Generator) -> Image.Image:
    columns, rows = int(rng.integers(30, 80)), int(rng.integers(8, 30))
    image = Image.new("RGB", (columns * 6 + 8, rows * 11 + 8), (0, 0, 0))
    pen = ImageDraw.Draw(image)
    colours: list[Colour] = [(200, 200, 200), (0, 200, 0), (200, 0, 0)]
    bitmap = ImageFont.load_default_imagefont()
    for row in range(rows):
        text = _words(rng, int(rng.integers(0, 10)))[: int(rng.integers(1, columns))]
        colour = colours[int(rng.integers(0, 3))] if rng.random() < 0.3 else colours[0]
        pen.text((4, 4 + row * 11), text, fill=colour, font=bitmap)
    return image


def _table(rng: np.random.Generator) -> Image.Image:
    columns, rows = int(rng.integers(3, 9)), int(rng.integers(4, 20))
    image = Image.new("RGB", (columns * 50 + 1, rows * 18 + 1), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    for row in range(rows):
        for column in range(columns):
            x, y = column * 50, row * 18
            fill = (230, 240, 255) if row % 2 else (255, 255, 255)
            pen.rectangle((x, y, x + 50, y + 18), fill=fill, outline=(180, 180, 180))
            pen.text((x + 4, y + 3), str(int(rng.integers(0, 9999))), fill=(0, 0, 0), font=_font(10))
    return image


def _dark_dashboard(rng: np.random.Generator) -> Image.Image:
    width, height = 320, 240
    image = Image.new("RGB", (width, height), (24, 27, 31))
    pen = ImageDraw.Draw(image)
    for x in (8, 112, 216):
        for y in (8, 124):
            pen.rounded_rectangle((x, y, x + 96, y + 108), 4, fill=(34, 37, 43))
            tile = _pie(rng) if rng.random() < 0.3 else None
            if tile is None:
                pen.text(
                    (x + 48, y + 54), str(int(rng.integers(0, 999))), fill=_colour(rng), anchor="mm", font=_font(28)
                )
            else:
                image.paste(tile.resize((80, 80)), (x + 8, y + 16))
    return image


def _hidpi(rng: np.random.Generator) -> Image.Image:
    """Return a window or a terminal at two or three screen pixels a point: everything lies on a lattice."""
    small = (_window if rng.random() < 0.5 else _terminal)(rng)
    times = int(rng.integers(2, 4))
    return small.resize((small.width * times, small.height * times), Image.Resampling.NEAREST)


# -- text ------------------------------------------------------------------------------------------------------------


def _page(rng: np.random.Generator) -> Image.Image:
    width, height, size = _side(rng) + 50, _side(rng), int(rng.integers(8, 20))
    back, front = _two_colours(rng) if rng.random() < 0.4 else ((255, 255, 255), (0, 0, 0))
    image = Image.new("RGB", (width, height), back)
    pen = ImageDraw.Draw(image)
    for y in range(6, height - size, int(size * 1.3)):
        pen.text((8, y), _words(rng, 20)[: int(width / size * 1.6)], fill=front, font=_font(size))
    return image


def _bitmap_page(rng: np.random.Generator) -> Image.Image:
    """Text in a bitmap font: exactly two colours, many small regions, sometimes enlarged."""
    columns, rows = int(rng.integers(10, 60)), int(rng.integers(3, 25))
    image = Image.new("L", (columns * 6 + 10, rows * 11 + 10), 0 if rng.random() < 0.5 else 255)
    pen = ImageDraw.Draw(image)
    bitmap = ImageFont.load_default_imagefont()
    ink = 255 - int(np.asarray(image)[0, 0])
    for row in range(rows):
        pen.text((5, 5 + row * 11), _words(rng, 20)[:columns], fill=ink, font=bitmap)
    times = int(rng.choice([1, 1, 2, 3]))
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def _one_word(rng: np.random.Generator) -> Image.Image:
    back, front = _two_colours(rng)
    size = int(rng.integers(16, 90))
    word = _words(rng, 1)
    image = Image.new("RGB", (int(len(word) * size * 0.62) + 20, size + 20), back)
    ImageDraw.Draw(image).text((10, 8), word, fill=front, font=_font(size))
    return image


def _round_stamp(rng: np.random.Generator) -> Image.Image:
    """Words set inside a disc, as on a seal."""
    back, front = _two_colours(rng)
    side = max(128, _side(rng))
    image = Image.new("RGB", (side, side), back)
    pen = ImageDraw.Draw(image)
    pen.ellipse((1, 1, side - 2, side - 2), fill=front)
    size = side / 12
    for k in range(-3, 4):
        half = math.sqrt(0.2 - (k / 9) ** 2)
        pen.text(
            (side / 2, side / 2 + k * size * 1.2),
            _words(rng, 8)[: max(2, int(half * 34))],
            fill=back,
            anchor="mm",
            font=_font(size),
        )
    return image


KINDS: dict[str, tuple[Picture, ...]] = {
    "photos": (_scenery, _round_vignette, _shaded_ball, _night_sky, _portrait),
    "logos": (_logo, _logo, _logo, _plain_shape, _pixel_art, _two_dimensional_code, _checkerboard),
    "charts": (_bars, _lines, _scatter, _pie, _heat_map, _gauge),
    "screenshots": (_window, _terminal, _table, _dark_dashboard, _hidpi),
    "text": (_page, _bitmap_page, _one_word, _round_stamp),
}


def non_wafers(kind: str, count: int, seed: int) -> list[tuple[str, bytes]]:
    """`count` files of one kind, each with the name of what it shows; photos are mostly JPEG, the rest mostly PNG."""
    rng = np.random.default_rng([seed, *kind.encode()])
    files = []
    for index in range(count):
        picture = KINDS[kind][index % len(KINDS[kind])]
        image = picture(rng)
        jpeg = rng.random() < (0.7 if kind == "photos" else 0.15)
        buffer = io.BytesIO()
        if jpeg:
            image.save(buffer, "JPEG", quality=int(rng.integers(70, 96)))
        else:
            image.save(buffer, "PNG")
        files.append((picture.__name__.strip("_"), buffer.getvalue()))
    return files
