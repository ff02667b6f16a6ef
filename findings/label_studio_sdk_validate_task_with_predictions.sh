#!/usr/bin/env bash
# label-studio-sdk 2.1.2 cannot validate a task that has predictions: validate_task raises a TypeError.
# Packages: label-studio-sdk 2.1.2
# Expected: LabelInterface.validate_task checks the task's data, annotations and predictions, as its documentation says, and
#   returns True for a task whose data and prediction are valid by themselves.
# Seen: it calls validate_prediction() without the prediction: TypeError, missing 1 required positional argument.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check label-studio-sdk==2.1.2
cd "$place"
venv/bin/python -W ignore - <<'PYTHON'
from label_studio_sdk.label_interface import LabelInterface

interface = LabelInterface(
    """<View><Image name="image" value="$image"/>
    <RectangleLabels name="label" toName="image"><Label value="cat"/></RectangleLabels></View>"""
)
value = {"x": 5, "y": 10, "width": 20, "height": 50, "rotation": 0, "rectanglelabels": ["cat"]}
region = {
    "id": "r", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": 60,
    "original_height": 40, "image_rotation": 0, "value": value,
}
prediction = {"model_version": "x", "score": 0.5, "result": [region]}
task = {"data": {"image": "a.png"}}
assert interface.validate_task(task) and interface.validate_prediction(prediction)
try:
    print(interface.validate_task({**task, "predictions": [prediction]}))
    raise SystemExit("changed: no error")
except TypeError as error:
    print(error)
    assert "missing 1 required positional argument: 'prediction'" in str(error), error
PYTHON
