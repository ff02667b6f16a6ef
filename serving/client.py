#!/usr/bin/env python
"""Detects objects by a model that TensorFlow Serving, or `tf-fast-rcnn serve`, has loaded.

    python serving/client.py cells/*.jpg --model cells --draw drawn
    python serving/client.py cell.jpg --model cells --rest http://localhost:8501 --proposals runs/cells/run.json

Needs pip install tensorflow-serving-api==2.21.* httpx tenacity pillow, and tf_fast_rcnn only to compute proposals here.
"""

import argparse
import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from prediction import GrpcClient, RestClient, ServingError

# As they are in these formats, unless they are to be turned.
_SENT_AS_THEY_ARE = ("JPEG", "PNG")


def encode(path):
    """The bytes of an image file as the server takes it: upright, since it does not look at EXIF, as JPEG or PNG."""
    with Image.open(path) as image:
        if image.format in _SENT_AS_THEY_ARE and image.getexif().get(0x0112, 1) == 1:
            return Path(path).read_bytes()
        file = io.BytesIO()
        ImageOps.exif_transpose(image).convert("RGB").save(file, "PNG")
        return file.getvalue()


def compute_proposals(image_bytes, what):
    """An image's proposals, float32 `[P, 4]`: of a .npy file, or computed here as `what` says.

    Args:
        image_bytes: of the image, as it is sent.
        what: path of a .npy file, or of RUN/run.json or assets/metadata.json, whose settings count; or
            "selective-search".
    """
    if what.endswith(".npy"):
        return np.load(what)
    from tf_fast_rcnn.data.images import read_image
    from tf_fast_rcnn.data.proposals import ProposalSettings, compute_proposals, settings_from_json

    if what == "selective-search":
        settings = ProposalSettings("fast")
    else:
        content = json.loads(Path(what).read_text())
        settings = settings_from_json((content["training"]["run"] if "training" in content else content)["proposals"])
    return compute_proposals(read_image("the image", image_bytes), settings)


def draw(image_bytes, detections, class_names, threshold):
    """The image with the detections from a score on, a `PIL.Image`."""
    image = Image.open(io.BytesIO(image_bytes)).convert("RGB")
    pen = ImageDraw.Draw(image)
    size = max(12, min(image.size) // 40)
    for row, score in enumerate(detections.scores):
        if score < threshold:
            break
        ymin, xmin, ymax, xmax = detections.boxes[row] * np.array([image.height, image.width] * 2)
        text = f"{_name(detections, row, class_names)} {score:.2f}"
        place = (max(0, xmin), max(0, ymin - 1.2 * size))
        pen.rectangle((xmin, ymin, xmax, ymax), outline="red", width=max(2, size // 8))
        pen.rectangle(pen.textbbox(place, text, font_size=size), fill="red")
        pen.text(place, text, fill="white", font_size=size)
    return image


def _name(detections, row, class_names):
    if detections.names is not None:
        return detections.names[row]
    label = int(detections.class_ids[row])
    return class_names[label - 1] if label <= len(class_names) else f"class {label}"


def main(arguments=None):
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    names = Path(options.class_names).read_text(encoding="utf-8").splitlines() if options.class_names else []
    kind, address = (RestClient, options.rest) if options.rest else (GrpcClient, options.grpc)
    results = []
    try:
        with kind(address, options.model, version=options.version, deadline=options.deadline) as client:
            for path in options.images:
                results.append(_detect_file(client, path, options, names))
    except (ServingError, OSError) as error:
        print(f"client: error: {error}", file=sys.stderr)
        return 1
    finally:
        if options.json:
            print(json.dumps(results, indent=2, ensure_ascii=False))
    return 0


def _detect_file(client, path, options, names):
    """Detects in one image, and prints or draws what is found; a value of JSON's types."""
    image = encode(path)
    proposals = [compute_proposals(image, options.proposals)] if options.proposals else None
    (detections,) = client.detect([image], proposals)
    if options.draw:
        Path(options.draw).mkdir(parents=True, exist_ok=True)
        drawn = Path(options.draw) / f"{Path(path).stem}.png"
        draw(image, detections, names, options.draw_threshold).save(drawn)
    rows = [
        {"class": _name(detections, row, names), "score": float(score), "box": detections.boxes[row].tolist()}
        for row, score in enumerate(detections.scores)
    ]
    if not options.json:
        shown = "".join(f"\n  {row['class']} {row['score']:.3f} {np.round(row['box'], 4).tolist()}" for row in rows)
        print(f"{path}: {len(rows)} detections{shown}")
    return {"image": str(path), "detections": rows}


def _parser():
    parser = argparse.ArgumentParser(
        description="Detects objects in images by a model that is served.",
        epilog=__doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--model", required=True, help="its name on the server")
    parser.add_argument("--version", type=int, metavar="N", help="of the model (default: the latest)")
    parser.add_argument("--grpc", default="localhost:8500", metavar="HOST:PORT", help="default: localhost:8500")
    parser.add_argument("--rest", metavar="URL", help="over HTTP instead, such as http://localhost:8501")
    parser.add_argument("--deadline", type=float, default=60.0, metavar="S", help="seconds an image (default: 60)")
    parser.add_argument(
        "--proposals",
        metavar="WHAT",
        help="computed here: selective-search, or as in the training that RUN/run.json or assets/metadata.json tells "
        "of; or a .npy file (default: the model finds them itself)",
    )
    parser.add_argument("--class-names", metavar="FILE", help="a name a line, for models that tell numbers alone")
    parser.add_argument("--draw", metavar="DIR", help="folder for the images with what was found")
    parser.add_argument("--draw-threshold", type=float, default=0.5, metavar="X", help="least score (default: 0.5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
