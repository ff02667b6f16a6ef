# %% [markdown]
# # From a folder of images to mAP
#
# This notebook trains an object detector on your own images: it reads annotated images from a folder, shows them,
# trains for a short time, measures the mean average precision (mAP) and draws detections.
#
# The package generates the folder, in Pascal VOC's layout, so nothing needs to be downloaded.
# To use your own data, change the SPEC in the cell that calls `load_dataset`. With the values below, everything takes
# a few minutes on two CPU cores.

# %% tags=["parameters"]
TRAIN_IMAGES, TEST_IMAGES = 100, 30
STEPS = 150  # mini-batches of training
SHORTER_SIDE = 320  # images are resized for the network: their shorter side in pixels

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.data.drawing import draw_ground_truth
from tf_fast_rcnn.demo.digits import generate_digits
from tf_fast_rcnn.visualization.drawing import contact_sheet

scratch = tempfile.TemporaryDirectory()  # removed at the end; use your own folder to keep the results
folder = Path(scratch.name)

# %% [markdown]
# ## The data
#
# Pascal VOC's layout has the images in `JPEGImages`, one XML file with boxes and class names per image in
# `Annotations`, and lists of images in `ImageSets/Main`, one for each split.
#
# `load_dataset` reads it. The SPEC names the format, the folder and the split; `coco:`, `csv:`, `yolo:` and `tfds:`
# read other formats. The test split gets the class names of the training split, so that both number the classes in
# the same way.

# %%
voc = generate_digits(folder / "digits", {"train": TRAIN_IMAGES, "test": TEST_IMAGES})
for path in sorted(voc.glob("*/*"))[:3] + sorted(voc.glob("*/*/*")):
    print(path.relative_to(folder))

train = frcnn.load_dataset(f"voc:{voc}@train")
test = frcnn.load_dataset(f"voc:{voc}@test", class_names=train.class_names)
print(f"{len(train)} training images, {len(test)} test images, classes: {', '.join(train.class_names)}")

# %% [markdown]
# Always look at the boxes before you train. `browse` searches the annotations for likely mistakes, such as duplicate
# boxes, and writes a page with all findings, `page/index.html`. Here we print how many findings of each kind there are,
# and draw a few images with their boxes.

# %%
facts = frcnn.browse(train, folder / "page", progress=False)
print({kind: count for kind, count in facts["counts"].items() if count} or "no findings")
contact_sheet([draw_ground_truth(record.image(), record, train.class_names) for record in train[:6]], columns=3)

# %% [markdown]
# ## Training
#
# Distinguishing ten digits takes longer training. `with_classes` merges them into one class, so that a short training
# is enough to find digits and ignore the other shapes. Without this line, the detector learns all ten classes; then
# train it for 800 steps.
#
# A recipe contains all settings of a training run. `small-data` is the one for tens to thousands of images; it
# fine-tunes an EfficientNet-Lite0 with ImageNet weights, which come with the package. `train` first computes the
# object proposals that Fast R-CNN classifies, and writes everything to a folder, the RUN.

# %%
train, test = (frcnn.with_classes(dataset, {"digit": list("0123456789")}) for dataset in (train, test))
recipe = frcnn.recipe(
    "small-data",
    {"steps": STEPS, "sampling.shorter_side": SHORTER_SIDE, "sampling.longer_side": 2 * SHORTER_SIDE},
)
summary = frcnn.train(train, folder / "run", recipe=recipe, progress=False)
print(f"{summary.steps} mini-batches in {summary.seconds:.0f} s, last loss {summary.loss:.3f}")
Image.open(folder / "run" / "losses.png")

# %% [markdown]
# ## Evaluation
#
# `load_run` reads the trained model together with the settings of its proposals. An object counts as found if a
# detection overlaps it by an IoU of at least 0.5. Average precision (AP) summarises the curve of precision over
# recall, and mAP is the mean of the classes' APs.

# %%
run = frcnn.load_run(folder / "run")
settings = frcnn.detection_settings(run, score_threshold=0.01)
result = frcnn.evaluate(run.model, test, "voc07", proposals=run.proposals, settings=settings, progress=False)
print(result.table())
(digit,) = result.classes
plt.figure(figsize=(5, 3.5))
plt.plot(digit.recall, digit.precision)
plt.xlabel("recall: share of the digits that are found")
plt.ylabel("precision: share of the detections that are right")
plt.title(f"AP {digit.ap:.3f} on {result.num_images} test images")
plt.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## Detection
#
# `detect` finds the objects in one image. It returns boxes `[ymin, xmin, ymax, xmax]` relative to the image, scores and
# class ids, best first. Left: the annotations; right: the detections with a score of at least 0.5.

# %%
pictures = []
for record in test[:3]:
    image = record.image()
    detections = frcnn.detect(run.model, image, run.proposals, frcnn.detection_settings(run, score_threshold=0.5))
    print(f"{record.image_id}: {len(record.boxes)} objects, {len(detections.scores)} detections")
    pictures.append(draw_ground_truth(image, record, test.class_names))
    pictures.append(frcnn.draw_detections(image, detections, run.class_names))
contact_sheet(pictures, columns=2)

# %% [markdown]
# ## Where to go next
#
# - The same from the command line: `tf-fast-rcnn browse`, `train`, `evaluate` and `detect`
#   (docs/getting_started.md). `evaluate --report` writes a page that shows where mAP is lost.
# - docs/training.md describes the settings of a recipe, docs/networks.md other backbones.
# - The notebook `serve_and_query` exports a trained detector and queries it over a network.
