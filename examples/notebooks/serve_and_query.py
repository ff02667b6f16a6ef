# %% [markdown]
# # Serve a detector and query it
#
# This notebook exports a trained detector as a SavedModel, starts a server for it, and sends images to the server over
# REST and over gRPC. The server speaks the protocol of TensorFlow Serving, so the requests below work with either.
#
# Needs `pip install 'tf-fast-rcnn[serving]'`. With the values below, everything takes a few minutes on two CPU
# cores; most of it is training.

# %% tags=["parameters"]
RUN = None  # the folder of a trained detector, such as "runs/cells"; None trains one for a short time
TRAIN_IMAGES, STEPS = 60, 80  # of this training

# %%
import atexit
import base64
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc
import httpx
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.demo.digits import generate_digits
from tf_fast_rcnn.visualization.drawing import contact_sheet

scratch = tempfile.TemporaryDirectory()  # removed when the notebook ends
folder = Path(scratch.name)

# %% [markdown]
# ## A detector
#
# Any trained detector will do. Without one, we train one for a short time to find handwritten digits, in images that
# the package generates; the notebook `own_data` explains how.

# %%
voc = generate_digits(folder / "digits", {"train": TRAIN_IMAGES, "test": 4})
if RUN is None:
    train = frcnn.with_classes(frcnn.load_dataset(f"voc:{voc}@train"), {"digit": list("0123456789")})
    changes = {"steps": STEPS, "sampling.shorter_side": 320, "sampling.longer_side": 640}
    frcnn.train(train, folder / "run", recipe=frcnn.recipe("small-data", changes), progress=False)
run = frcnn.load_run(RUN or folder / "run")

# %% [markdown]
# ## Export
#
# The SavedModel contains everything from the bytes of an image file to detections: decoding, proposals, the network and
# non-maximum suppression. A server watches the folder `models/digits` and serves the version with the highest number;
# this is version 1. Each signature is one kind of request.

# %%
signatures = frcnn.export_saved_model(
    run.model,
    folder / "models" / "digits" / "1",
    class_names=run.class_names,
    settings=frcnn.detection_settings(run, max_detections=20),
    proposals=run.proposals,
    class_names_output=True,
)
print("signatures:", ", ".join(sorted(signatures)))

# %% [markdown]
# ## Start the server
#
# `tf-fast-rcnn serve` runs in its own process, on the loopback interface, until it is terminated. Port 0 means any
# free port. The command prints its addresses as soon as it answers requests. Then we ask the server whether the model
# is available, and which inputs and outputs it has.

# %%
program = Path(sys.executable).with_name("tf-fast-rcnn")
options = ["--server", "embedded", "--grpc-port", "0", "--rest-port", "0"]
command = [program, "serve", folder / "models" / "digits", *options]
with open(folder / "server.log", "w") as log:
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
atexit.register(server.terminate)
addresses = dict(server.stdout.readline().split() for _ in range(3))
print(addresses)

http = httpx.Client(timeout=300)  # seconds: the first request is slow, because TensorFlow then optimises the graph
status = http.get(addresses["rest"]).json()["model_version_status"][0]
print("version", status["version"], status["state"])
metadata = http.get(f"{addresses['rest']}/metadata").json()["metadata"]["signature_def"]["signature_def"]
for name in ("inputs", "outputs"):
    print(name, sorted(metadata["detect_image_bytes"][name]))

# %% [markdown]
# ## Query by REST
#
# The request is JSON: the signature's name and its inputs. Bytes are written as base64. One request may contain several
# images. The response has one row per image. Rows are padded to the same length, so only the first
# `num_detections` entries of a row are valid.

# %%
paths = sorted((voc / "JPEGImages").glob("test_*.jpg"))
encoded = [{"b64": base64.b64encode(path.read_bytes()).decode()} for path in paths]
request = {"signature_name": "detect_image_bytes", "inputs": {"image_bytes": encoded}}
response = http.post(f"{addresses['rest']}:predict", json=request)
response.raise_for_status()
by_rest = response.json()["outputs"]
for path, count in zip(paths, by_rest["num_detections"], strict=True):
    print(path.name, count, "detections")

# %% [markdown]
# ## Query by gRPC
#
# The same request with TensorFlow Serving's protocol buffers. Images are sent as they are, without base64, which is
# faster for large requests.
#
# We draw the detections with a score of at least 0.5. Boxes are `[ymin, xmin, ymax, xmax]` relative to the image,
# in descending order of score.

# %%
channel = grpc.insecure_channel(addresses["grpc"])
request = predict_pb2.PredictRequest()
request.model_spec.name, request.model_spec.signature_name = addresses["model"], "detect_image_bytes"
request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([path.read_bytes() for path in paths]))
response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=300)
by_grpc = {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}
difference = np.abs(by_grpc["detection_boxes"] - by_rest["detection_boxes"]).max()
print(f"{by_grpc['num_detections'].sum()} detections, largest difference from REST {difference:.6f}")

pictures = []
for index, path in enumerate(paths):
    count = by_grpc["num_detections"][index]
    rows = [by_grpc[f"detection_{name}"][index, :count] for name in ("boxes", "scores", "classes")]
    pictures.append(
        frcnn.draw_detections(frcnn.read_image(path), frcnn.Detections(*rows), run.class_names, min_score=0.5)
    )
contact_sheet(pictures, columns=2)

# %% [markdown]
# ## Stop the server
#
# The server first answers the requests that it has received, then stops. Where to go next:
#
# - `serving/client.py` is a client for the command line; `serving/prediction.py` has client classes with deadlines and
#   retries, for REST and gRPC, also with asyncio.
# - `tf-fast-rcnn serve --with-proposals` adds a web page on which you can drop images.
# - docs/serving.md describes batching, new versions, limits, and the configurations for TensorFlow Serving in Docker
#   and Kubernetes.

# %%
http.close()
channel.close()
server.terminate()
print("exit code", server.wait(timeout=300))
