"""serving/: configurations, container and Kubernetes files, as far as they can be checked without a server or cluster.

The container of `custom_ops_server` is not built here; its build rule is compared with setup.py.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

PROJECT = Path(__file__).parents[2]
SERVING = PROJECT / "serving"
MANIFESTS = sorted((SERVING / "kubernetes").glob("*.yaml"))
FIELD = descriptor_pb2.FieldDescriptorProto
CONFIGURATIONS = ("models.config", "batching_parameters.txt", "monitoring.config")


def message_class(name, fields):
    """A protobuf message class from the (name, number, type or name of the type, repeated) of each field.

    The API package on PyPI lacks the two messages used here. Names, numbers and types are those of
    servables/tensorflow/session_bundle_config.proto and config/monitoring_config.proto in TensorFlow Serving.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="test", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    message = file.message_type.add(name=name)
    for field, number, kind, repeated in fields:
        label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
        added = message.field.add(name=field, number=number, label=label)
        if isinstance(kind, str):
            added.type, added.type_name = FIELD.TYPE_MESSAGE, kind
        else:
            added.type = kind
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"test.{name}"))


INT64 = ".google.protobuf.Int64Value"
BatchingParameters = message_class(
    "BatchingParameters",
    [
        ("max_batch_size", 1, INT64, False),
        ("batch_timeout_micros", 2, INT64, False),
        ("max_enqueued_batches", 3, INT64, False),
        ("num_batch_threads", 4, INT64, False),
        ("thread_pool_name", 5, ".google.protobuf.StringValue", False),
        ("allowed_batch_sizes", 6, FIELD.TYPE_INT64, True),
        ("pad_variable_length_inputs", 7, FIELD.TYPE_BOOL, False),
    ],
)
PrometheusConfig = message_class(
    "PrometheusConfig", [("enable", 1, FIELD.TYPE_BOOL, False), ("path", 2, FIELD.TYPE_STRING, False)]
)
MonitoringConfig = message_class("MonitoringConfig", [("prometheus_config", 1, ".test.PrometheusConfig", False)])


def parse(name, message):
    return text_format.Parse((SERVING / name).read_text(), message)


def test_models_config():
    config = parse("models.config", model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("cells", "/models/cells", "tensorflow")
    assert model.model_version_policy.latest.num_versions == 1


def test_batching_parameters():
    parameters = parse("batching_parameters.txt", BatchingParameters())
    sizes = list(parameters.allowed_batch_sizes)
    # TensorFlow Serving requires increasing sizes that end with the maximum batch size.
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == parameters.max_batch_size.value
    assert parameters.pad_variable_length_inputs
    told = re.search(r"--warm-up (\d+(?:,\d+)*)", (SERVING / "batching_parameters.txt").read_text())[1]
    assert [int(size) for size in told.split(",")] == sizes


def test_monitoring_config():
    assert parse("monitoring.config", MonitoringConfig()).prometheus_config.enable


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_manifests_have_kubernetes_schemas(manifest, version):
    kubernetes_validate.validate(yaml.safe_load(manifest.read_text()), version, strict=True)


def load(name):
    return yaml.safe_load((SERVING / name).read_text())


def test_the_kustomization_has_every_file():
    kustomization = load("kustomization.yaml")
    assert sorted(kustomization["resources"]) == [f"kubernetes/{path.name}" for path in MANIFESTS]
    (generated,) = kustomization["configMapGenerator"]
    assert sorted(generated["files"]) == sorted(CONFIGURATIONS)
    pod = load("kubernetes/deployment.yaml")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["config"]["configMap"]["name"] == generated["name"]
    claim = load("kubernetes/models_volume.yaml")["metadata"]["name"]
    assert volumes["models"]["persistentVolumeClaim"]["claimName"] == claim


def test_pods_are_found_by_their_labels():
    deployment = load("kubernetes/deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert load("kubernetes/service.yaml")["spec"]["selector"] == labels
    assert load("kubernetes/pod_disruption_budget.yaml")["spec"]["selector"]["matchLabels"] == labels
    target = load("kubernetes/horizontal_pod_autoscaler.yaml")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])


def test_the_pod_is_restricted_and_probed():
    """The requirements of the "restricted" pod security standard of Kubernetes, and a read-only file system."""
    pod = load("kubernetes/deployment.yaml")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    context = container["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {f"--port={ports['grpc']}", f"--rest_api_port={ports['rest']}"} <= set(container["args"])
    assert "--enable_grpc_healthcheck_service=true" in container["args"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"]["port"] == ports["grpc"]


def test_compose_file_has_its_schema_and_its_files():
    path = SERVING / "docker-compose.yml"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    service = load("docker-compose.yml")["services"]["tensorflow-serving"]
    mounted = [volume.split(":")[:2] for volume in service["volumes"] if volume.startswith("./")]
    assert sorted(mounted) == sorted([f"./{name}", f"/config/{name}"] for name in CONFIGURATIONS)
    assert service["read_only"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    # Both start the server with the same options.
    (container,) = load("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["containers"]
    assert service["command"] == container["args"]
    assert service["image"].endswith(f"{container['image']}}}")


def build_rule():
    """Arguments of cc_library in the BUILD file, with globs evaluated in custom_ops/."""
    tree = ast.parse((SERVING / "custom_ops_server" / "BUILD").read_text())
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.func.id == "cc_library"]

    def glob(patterns, exclude=()):
        found = {
            str(path.relative_to(PROJECT / "custom_ops"))
            for each in patterns
            for path in (PROJECT / "custom_ops").glob(each)
        }
        assert found >= set(exclude)
        return sorted(found - set(exclude))

    return {
        argument.arg: eval(compile(ast.Expression(argument.value), "BUILD", "eval"), {"glob": glob})
        for argument in call.keywords
    }


def test_the_build_rule_compiles_what_setup_py_does():
    rule, setup = build_rule(), ast.parse((PROJECT / "setup.py").read_text())
    texts = {node.value for node in ast.walk(setup) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert set(rule["copts"]) <= texts
    left_out = {"custom_ops/cc/kernels/roi_pool/cuda/op_kernels.cc", "custom_ops/cc/selective_search/c_api.cc"}
    assert left_out <= texts
    sources = {str(path.relative_to(PROJECT)) for path in (PROJECT / "custom_ops" / "cc").rglob("*.cc")}
    assert {f"custom_ops/{name}" for name in rule["srcs"] if name.endswith(".cc")} == sources - left_out
    assert rule["alwayslink"] == 1


def test_the_container_builds_the_rule_into_the_server(tmp_path):
    text = (SERVING / "custom_ops_server" / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (\S+) (\S+)$", text, re.MULTILINE)
    assert all((PROJECT / source).exists() for source, _ in copied)
    # Applies the sed command to a list like that of TensorFlow Serving.
    build = tmp_path / "tensorflow_serving" / "model_servers" / "BUILD"
    build.parent.mkdir(parents=True)
    build.write_text('SUPPORTED_TENSORFLOW_OPS = if_v2([]) + [\n    "//a:b",\n]\n')
    (command,) = re.findall(r"^RUN (sed .*?grep[^\n]*)$", text, re.MULTILINE | re.DOTALL)
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    names = {"if_v2": lambda ops: ops}
    exec(build.read_text(), names)
    folder = dict(copied)["serving/custom_ops_server/BUILD"].removesuffix("/BUILD")
    assert names["SUPPORTED_TENSORFLOW_OPS"] == [f"//{folder}:{build_rule()['name']}", "//a:b"]
