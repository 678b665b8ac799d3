"""Makes `assets/before-after.jpg`: photographs of scikit-learn with our weather, drops as on a wet pane, and what the
shipped model restores.

Run from the repository's root: `PYTHONPATH=. python assets/make_before_after.py`.
"""

from pathlib import Path

import sklearn.datasets
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mofme.vision.picture.file import read_picture
from mofme.vision.restorer import Restorer
from mofme.vision.weather import WEATHERS, synthesize
from mofme.vision.weather.raindrop import add_lens_drops

SEEDS = {"rain": 1, "snow": 2, "raindrop": 3, "haze": 4}
PHOTOS = {"rain": "china.jpg", "snow": "flower.jpg", "raindrop": "china.jpg", "haze": "china.jpg"}
WIDTH = 480


def main() -> None:
    images = Path(sklearn.datasets.__file__).parent / "images"
    restorer = Restorer.from_pretrained()
    font = ImageFont.load_default(18)
    cells = []
    for weather in WEATHERS:
        clean = read_picture(images / PHOTOS[weather]).rgb
        generator = torch.Generator().manual_seed(SEEDS[weather])
        spoilt = synthesize(clean[None], [weather], generator, raindrops=add_lens_drops).image[0]
        for title, picture in ((weather, spoilt), ("restored", restorer(spoilt).image)):
            cells.append(_cell(picture, title, font))
    width, height = cells[0].size
    sheet = Image.new("RGB", (width * len(WEATHERS), height * 2), "white")
    for i, cell in enumerate(cells):
        sheet.paste(cell, (i // 2 * width, i % 2 * height))
    sheet.save(Path(__file__).parent / "before-after.jpg", quality=88)


def _cell(picture: Tensor, title: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Image.Image:
    image = Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy())
    image = image.resize((WIDTH, round(WIDTH * image.height / image.width)), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image, "RGBA")
    draw.rectangle((8, 8, 20 + draw.textlength(title, font=font), 36), fill=(0, 0, 0, 150))
    draw.text((14, 11), title, fill="white", font=font)
    return image


if __name__ == "__main__":
    main()
