#!/usr/bin/env bash
# SAHI clips the boxes of a slice to the full image before it moves them into place: they can end outside of the image.
# Packages: sahi 0.12.8, numpy 2.4.6
# Expected: a model returns a box that extends beyond its slice, as box regression does. ObjectPrediction takes the
# shift of the slice and the shape of the full image, so the box in the full image ends at the full image's border.
# Seen: the limit of the full image, 150, is applied to coordinates of the slice. A box that ends at 70 in the last
# slice, from 100 to 150, ends at 170 in an image of 150 pixels; one that ends at 1000 ends at 250. Shifted masks are
# clipped after the shift.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check sahi==0.12.8 numpy==2.4.6
cd "$place"
venv/bin/python - <<'PYTHON'
import numpy as np
from sahi.models.base import DetectionModel
from sahi.predict import get_sliced_prediction
from sahi.prediction import ObjectPrediction


class Model(DetectionModel):
    """Finds one box in every slice of 50 x 50 pixels: from 40 to `end`, and 10 pixels high."""

    def set_model(self, model, **options):
        self.model = model

    def perform_inference(self, image):
        assert image.shape == (50, 50, 3)

    def _create_object_prediction_list_from_original_predictions(self, shift_amount_list=None, full_shape_list=None):
        self._object_prediction_list_per_image = [
            [
                ObjectPrediction(
                    bbox=[40, 0, self.model["end"], 10],
                    category_id=1,
                    category_name="car",
                    score=0.9,
                    shift_amount=shift_amount_list[0],
                    full_shape=full_shape_list[0],
                )
            ]
        ]


def ends(end):
    model = Model(model={"end": end}, confidence_threshold=0.3, device="cpu")
    sides = {"slice_height": 50, "slice_width": 50, "overlap_height_ratio": 0, "overlap_width_ratio": 0}
    image = np.zeros((50, 150, 3), np.uint8)
    found = get_sliced_prediction(
        image, model, **sides, perform_standard_pred=False, postprocess_type="NMS", verbose=0
    )
    return sorted(each.bbox.maxx for each in found.object_prediction_list)


print("boxes that end at 45 in their slices end at", ends(45), "in an image of 150 pixels")
print("boxes that end at 70 in their slices end at", ends(70))
assert ends(45) == [45, 95, 145]
assert ends(70) == [70, 120, 170]
# The limit is that of the full image, in coordinates of the slice.
box = ObjectPrediction([40, 0, 1000, 10], 1, "car", shift_amount=[100, 0], full_shape=[50, 150], score=0.9)
assert box.bbox.maxx == 150
assert box.get_shifted_object_prediction().bbox.maxx == 250
# A mask ends at the image.
outline = [[40, 0, 70, 0, 70, 10, 40, 10]]
mask = ObjectPrediction(None, 1, "car", outline, shift_amount=[100, 0], full_shape=[50, 150], score=0.9).mask
assert max(mask.get_shifted_mask().segmentation[0][::2]) == 150
PYTHON
