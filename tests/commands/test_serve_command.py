"""`tf-fast-rcnn serve`, in its own process."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

COMMAND = [sys.executable, "-c", "import sys; from tf_fast_rcnn.cli import main; sys.exit(main())", "serve"]


@contextlib.contextmanager
def running(folder, addresses, *options, environment=None):
    """Waits until the process has written its addresses; `folder` is a tuple of one path, or empty."""
    command = [*COMMAND, *map(str, (*folder, "--json", addresses, *options))]
    log = addresses.with_suffix(".log")
    with open(log, "w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ, **(environment or {})})
    try:
        deadline = time.monotonic() + 120
        while not addresses.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process, json.loads(addresses.read_text())
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def half_plus_two(tmp_path_factory):
    """The example model of TensorFlow Serving's documentation, plus a signature that waits for a file."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")], autograph=False)
    def serving_default(x):
        return {"y": x / 2 + 2}

    @tf.function(input_signature=[tf.TensorSpec([], tf.string, "path")], autograph=False)
    def wait(path):
        def missing(step):
            # The result depends on the step, so TensorFlow checks for the file again in every step.
            pattern = tf.strings.join([path, tf.strings.substr(tf.as_string(step), 0, 0)])
            return tf.equal(tf.size(tf.io.matching_files(pattern)), 0)

        steps = tf.while_loop(missing, lambda step: step + 1, [tf.constant(0)])
        with tf.control_dependencies(steps):
            return {"found": tf.identity(path)}

    folder = tmp_path_factory.mktemp("models") / "half_plus_two"
    tf.saved_model.save(tf.Module(), str(folder / "7"), signatures={"serving_default": serving_default, "wait": wait})
    return folder


FREE_PORTS = ("--grpc-port", 0, "--rest-port", 0)


def test_serves_until_sigterm_and_answers_what_it_was_asked(half_plus_two, tmp_path):
    server = running((half_plus_two,), tmp_path / "addresses.json", *FREE_PORTS, "--server", "embedded")
    with server as (process, addresses):
        assert addresses["model"] == "half_plus_two"
        assert addresses["rest"].startswith("http://127.0.0.1:")
        answer = requests.post(f"{addresses['rest']}:predict", json={"instances": [1.0, 2.0, 5.0]}, timeout=60)
        assert answer.json() == {"predictions": [2.5, 3.0, 4.5]}
        end = tmp_path / "end"
        body = json.dumps({"signature_name": "wait", "inputs": str(end)})
        asked = subprocess.Popen(["curl", "-s", f"{addresses['rest']}:predict", "-d", body], stdout=subprocess.PIPE)
        metrics = addresses["rest"].replace("v1/models/half_plus_two", "monitoring/prometheus/metrics")
        while "tf_fast_rcnn_requests_running 1.0" not in requests.get(metrics, timeout=60).text:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        end.touch()
        assert process.wait(timeout=60) == 0
        assert json.loads(asked.communicate(timeout=60)[0]) == {"outputs": str(end)}
        log = (tmp_path / "addresses.log").read_text()
    assert "version 7 of half_plus_two is available" in log
    assert f"rest     {addresses['rest']}" in log


STUB = """#!{python}
# Stand-in for TensorFlow Serving: reads the same options and configuration, and serves with this package.
import sys
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2
from tf_fast_rcnn.cli import main
options = dict(option.removeprefix("--").split("=", 1) for option in sys.argv[1:])
print("started with", sys.argv[1:], file=sys.stderr)
config = text_format.Parse(open(options["model_config_file"]).read(), model_server_config_pb2.ModelServerConfig())
(model,) = config.model_config_list.config
assert options["enable_grpc_healthcheck_service"] == "true"
number = model.model_version_policy.specific.versions
folder = model.base_path + (f"/{{number[0]}}" if number else "")
sys.exit(main(["serve", folder, "--name", model.name, "--server", "embedded", "--grpc-port", options["port"],
               "--rest-port", options["rest_api_port"]]))
"""


def free_port():
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture
def environment(tmp_path):
    """A PATH with a stand-in for TensorFlow Serving."""
    program = tmp_path / "bin" / "tensorflow_model_server"
    program.parent.mkdir()
    program.write_text(STUB.format(python=sys.executable))
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{os.environ['PATH']}"}


def test_tensorflow_model_server_is_started_where_it_is_on_the_path(half_plus_two, tmp_path, environment):
    ports = ("--grpc-port", free_port(), "--rest-port", free_port())
    (tmp_path / "latest").symlink_to(half_plus_two / "7")
    folder, name = tmp_path / "latest", ("--name", "half")
    server = running((folder,), tmp_path / "addresses.json", *ports, *name, environment=environment)
    with server as (process, addresses):
        assert addresses["grpc"] == f"127.0.0.1:{ports[1]}"
        answer = requests.post(f"{addresses['rest']}:predict", json={"instances": [1.0]}, timeout=60)
        assert answer.json() == {"predictions": [2.5]}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        with pytest.raises(requests.ConnectionError):
            requests.get(addresses["rest"], timeout=5)
    assert "listens on every network interface" in (tmp_path / "addresses.log").read_text()


@pytest.mark.slow
def test_tensorflow_model_server_gets_free_ports_and_more_options(half_plus_two, tmp_path, environment):
    options = (*FREE_PORTS, "--enable-cors", "--", "--monitoring_config_file=monitoring.config", "--v=1")
    server = running((half_plus_two,), tmp_path / "addresses.json", *options, environment=environment)
    with server as (process, addresses):
        assert not addresses["grpc"].endswith(":0")
        answer = requests.post(f"{addresses['rest']}:predict", json={"instances": [1.0]}, timeout=60)
        assert answer.json() == {"predictions": [2.5]}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    log = (tmp_path / "addresses.log").read_text()
    assert "'--monitoring_config_file=monitoring.config', '--v=1']" in log
    assert "'--rest_api_enable_cors_support=true'" in log


def test_options_after_the_dashes(refused, tmp_path, environment, monkeypatch):
    monkeypatch.setenv("PATH", environment["PATH"])
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "saved_model.pb").touch()
    tensorflow = ("--server", "tensorflow", "--")
    text = refused("serve", tmp_path, *tensorflow, "--port=9")
    assert "--port=9: found an option that serve sets itself" in text
    assert "monitoring: found no option of tensorflow_model_server" in refused(
        "serve", tmp_path, *tensorflow, "monitoring"
    )
    text = refused("serve", tmp_path, *FREE_PORTS, "--server", "embedded", "--", "--v=1")
    assert "--v=1: found an option of tensorflow_model_server for the embedded server" in text


def test_what_cannot_be_served(refused, tmp_path, monkeypatch):
    embedded = (*FREE_PORTS, "--server", "embedded")
    assert "found no such folder" in refused("serve", tmp_path / "none", *embedded)
    assert "found no version" in refused("serve", tmp_path, *embedded)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "tensorflow_model_server: found none on the PATH" in refused("serve", tmp_path, "--server", "tensorflow")
    (tmp_path / "batching").write_text("max_batch { value: 1 }")
    assert "found 'max_batch'" in refused("serve", tmp_path, *embedded, "--batching", Path(tmp_path / "batching"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "DIR and --remote: found neither"),
        (("export", "--remote", "host:8500"), "DIR and --remote: found both"),
        (("--remote", "host:8500"), "--remote requires --with-proposals"),
        (("--remote", "host:8500", "--with-proposals"), "--remote needs the name of the model"),
        (("export", "--class-names", "none.txt"), "none.txt: no such file"),
    ],
)
def test_options_that_do_not_fit_each_other(refused, options, text):
    assert text in refused("serve", *options)


@pytest.mark.slow
def test_a_gateway_in_front_of_a_remote_server(tmp_path):
    """Nothing listens at the remote address: the page is served, and health checks fail."""
    (tmp_path / "names.txt").write_text("cat\n")
    gateway = ("--with-proposals", "--remote", "127.0.0.1:9", "--name", "half", "--class-names", tmp_path / "names.txt")
    started = running((), tmp_path / "addresses.json", *gateway, "--gateway-port", 0, "--workers", 1)
    with started as (process, addresses):
        assert "rest" not in addresses
        assert "<h1>Detect objects: half</h1>" in requests.get(addresses["page"], timeout=60).text
        assert requests.get(f"{addresses['page']}healthz", timeout=60).status_code == 503
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
