"""Writes small datasets in Pascal VOC's layout, right or wrong on purpose."""

import numpy as np
from PIL import Image


class VocFolder:
    """Writes images, annotations and splits below a folder; every value can be made wrong on purpose."""

    def __init__(self, path):
        self.path = path
        for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (path / folder).mkdir(parents=True)

    def image(self, name, height=40, width=60, **options):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(self.path / "JPEGImages" / name, **options)
        return self.path / "JPEGImages" / name

    def annotation(self, image_id, objects="", size=(60, 40), filename=None):
        """`objects`: (class, xmin, ymin, xmax, ymax) each, or XML; `size`: (width, height) or None."""
        if not isinstance(objects, str):
            objects = "".join(self.object(*values) for values in objects)
        size_tag = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
        filename_tag = "" if filename is None else f"<filename>{filename}</filename>"
        path = self.path / "Annotations" / f"{image_id}.xml"
        path.write_text(f"<annotation>{filename_tag}{size_tag}{objects}</annotation>")
        return path

    @staticmethod
    def object(name, xmin, ymin, xmax, ymax, extra=""):
        return (
            f"<object><name>{name}</name>{extra}<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin>"
            f"<xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"
        )

    def split(self, name, text):
        (self.path / "ImageSets" / "Main" / f"{name}.txt").write_text(text)

    def simple(self, count=3, split="train", size=(40, 60)):
        """`count` images a0, a1, ... with one cat each."""
        for index in range(count):
            self.image(f"a{index}.png", *size)
            self.annotation(f"a{index}", [("cat", 1, 1, 30, 20)], size=size[::-1])
        self.split(split, "".join(f"a{index}\n" for index in range(count)))
        return self
