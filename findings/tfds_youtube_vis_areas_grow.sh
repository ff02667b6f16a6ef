#!/usr/bin/env bash
# youtube_vis of TensorFlow Datasets, resized to 480 x 640: areas of objects grow where the image shrinks.
# Packages: tensorflow-datasets 4.9.10 (youtube_vis 1.0.0), numpy 2.4.6, opencv-python-headless 5.0.0.93, pycocotools 2.0.11
# Expected: half the height and width make a quarter of the area: 12288 of a 960 x 1280 video is 3072 in 480 x 640, as the
#   resized mask in the same example has.
# Seen: 49152, four times the original area; the mask has 3072 pixels.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-datasets==4.9.10 numpy==2.4.6 opencv-python-headless==5.0.0.93 pycocotools==2.0.11
cd "$place"
venv/bin/python - <<'PYTHON'
from tensorflow_datasets.video.youtube_vis import youtube_vis

video = {"id": 1, "height": 960, "width": 1280, "file_names": ["a/00000.jpg"]}
square = [[64.0, 64.0, 192.0, 64.0, 192.0, 160.0, 64.0, 160.0]]  # 128 x 96 = 12288 pixels
track = {"video_id": 1, "bboxes": [[64, 64, 128, 96]], "segmentations": [square], "areas": [12288]}
track |= {"category_id": 1, "iscrowd": 0}
made = youtube_vis._create_per_track_annotation(video, ["a/00000.jpg"], track, 480, 640)
mask = int((made["segmentations"][0] > 0).sum())
print("area", made["areas"], "pixels of the mask", mask)
assert made["areas"] == [49152]
assert mask == 3072
PYTHON
