"""`tf-fast-rcnn import-caffe`: imports a Caffe network of the original Fast R-CNN as a RUN or a weights file."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.common import add_json_argument, check_new, start_tensorflow, write_result
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.files import replacing_path

EXAMPLES = """\
  tf-fast-rcnn import-caffe vgg16_fast_rcnn_iter_40000.caffemodel --network caffe_vgg16 --out runs/original
  tf-fast-rcnn import-caffe mine.caffemodel --network caffenet --class-names names.txt --out runs/mine
  tf-fast-rcnn import-caffe VGG16.v2.caffemodel --network caffe_vgg16 --out vgg16.weights.h5
  tf-fast-rcnn train --backbone caffe_vgg16 --weights VGG16.v2.caffemodel --train voc:VOC2007@trainval --out runs/vgg"""

NETWORKS = ("caffenet", "vgg_cnn_m_1024", "caffe_vgg16")

_WEIGHTS_SUFFIX = ".weights.h5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `import-caffe`."""
    parser.add_argument("file", metavar="FILE", help=".caffemodel of a trained detector or an ImageNet network")
    parser.add_argument("--network", required=True, choices=NETWORKS, help="S, M or L of the paper")
    parser.add_argument(
        "--class-names",
        metavar="FILE|voc",
        help="one class per line in the order of training, without the background (default: voc, 20 classes)",
    )
    parser.add_argument(
        "--out", required=True, metavar="RUN", help="a new folder; for an ImageNet network, a new .weights.h5 file"
    )
    add_json_argument(parser, "the summary")


def run(options: argparse.Namespace) -> None:
    """Runs `import-caffe` with its parsed options."""
    check_new(options.out, "--out")
    start_tensorflow()
    from tf_fast_rcnn.models.backbones.caffemodel import read_caffemodel
    from tf_fast_rcnn.models.caffe_detectors import is_caffe_detector

    caffe_model = read_caffemodel(options.file)
    if is_caffe_detector(caffe_model):
        summary, text = _import_detector(options, caffe_model)
    else:
        summary, text = _import_network(options)
    write_result(options, summary, text)


def _import_detector(options, caffe_model):
    from tf_fast_rcnn.models.caffe_detectors import unread_layers
    from tf_fast_rcnn.models.parts import number_of_classes
    from tf_fast_rcnn.training.run_folder import open_run, save_model

    if options.out.endswith(_WEIGHTS_SUFFIX):
        raise InputError(
            f"{options.file}: this is a trained detector, which is imported into a new folder, not a {_WEIGHTS_SUFFIX} "
            "file; choose another --out"
        )
    model = frcnn.load_caffe_detector(options.file, options.network)
    class_names = _class_names(options.class_names, number_of_classes(model))
    folder = open_run(options.out, _description(options, class_names))
    save_model(model, folder / "model.keras")
    unread = unread_layers(caffe_model, model)
    summary = {"run": str(folder), "class_names": list(class_names), "unread_layers": unread}
    lines = [f"{folder}: {options.network} detector with {len(class_names)} classes: {', '.join(class_names)}"]
    if unread:
        lines.append(f"skipped layers that are not part of Fast R-CNN: {', '.join(unread)}")
    lines.append(f"next: tf-fast-rcnn detect {folder} IMAGE, or tf-fast-rcnn evaluate {folder} --data SPEC")
    return summary, "\n".join(lines)


def _import_network(options):
    from tf_fast_rcnn.models.backbones import load_backbone

    if options.class_names:
        raise InputError(
            f"--class-names is only used with a trained detector, but {options.file} is an ImageNet network; remove it"
        )
    if not options.out.endswith(_WEIGHTS_SUFFIX):
        raise InputError(
            f"{options.file}: this is an ImageNet network, which is imported into a {_WEIGHTS_SUFFIX} file; "
            f"pass --out {options.out}{_WEIGHTS_SUFFIX}"
        )
    path = Path(options.out)
    network = load_backbone(options.network, options.file).network
    with replacing_path(path) as temporary:
        network.save_weights(temporary)
    text = (
        f"{path}: weights of {options.network}\nnext: tf-fast-rcnn train --backbone {options.network} --weights {path}"
    )
    return {"weights": str(path)}, text


def _class_names(option, number):
    """The names of a detector's classes 1..K; InputError if their number is wrong."""
    from tf_fast_rcnn.training.recipes import VOC_CLASSES

    if option in (None, "voc"):
        names, source = VOC_CLASSES, "--class-names"
    else:
        names, source = _lines(option), option
    if len(names) != number:
        raise InputError(
            f"{source}: found {len(names)} class names for a network of {number} classes; expected one for each, "
            "without the background; pass --class-names FILE with one class per line"
        )
    if len(set(names)) != number:
        raise InputError(f"{source}: found a class name twice; expected unique names; fix the file")
    return names


def _lines(path):
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(
            f"{path}: not valid UTF-8 text; expected one class name per line; pass 'voc' or a text file"
        ) from None
    return tuple(line.strip() for line in lines if line.strip())


def _description(options, class_names):
    """The content of run.json. The training is unknown; the paper's recipe supplies the image size."""
    recipe = dataclasses.replace(frcnn.recipe("voc07"), backbone=options.network, class_names=class_names)
    return {
        "package_version": frcnn.__version__,
        "imported_from": options.file,
        "class_names": list(class_names),
        "backbone": options.network,
        "recipe": dataclasses.asdict(recipe),
        "proposals": frcnn.proposal_settings("selective-search", dataset=()).to_json(),
    }
