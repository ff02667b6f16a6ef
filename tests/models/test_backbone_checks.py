"""Networks from elsewhere: composite blocks, augmentation, transformers, other image layouts, layers of one's own."""

import keras
import numpy as np
import pytest
from keras import layers
from naive_model import CLASSES, some_inputs, targets_for

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import InputError, fast_rcnn, multi_task_loss
from tf_fast_rcnn.models.backbone_split import cut_at_roi_pooling
from tf_fast_rcnn.models.truncated_svd import with_factors

PACKAGE = "test_backbone_checks"


@keras.saving.register_keras_serializable(PACKAGE)
class Norm(layers.BatchNormalization):
    """A subclass, as other packages have them."""


@keras.saving.register_keras_serializable(PACKAGE)
class Block(layers.Layer):
    """Makes its layers itself, as the blocks of KerasHub's MobileNet and EfficientNet do."""

    def __init__(self, filters, stride=1, norm="BatchNormalization", **options):
        super().__init__(**options)
        self.filters, self.stride, self.norm_name = filters, stride, norm
        self.convolution = layers.Conv2D(filters, 3, stride, padding="same")
        self.norm = Norm() if norm == "Norm" else layers.BatchNormalization()

    def build(self, shape):
        self.convolution.build(shape)
        self.norm.build((*shape[:-1], self.filters))

    def call(self, x, training=None):
        return keras.ops.relu(self.norm(self.convolution(x), training=training))

    def compute_output_shape(self, shape):
        return self.convolution.compute_output_shape(shape)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "stride": self.stride, "norm": self.norm_name}


@keras.saving.register_keras_serializable(PACKAGE)
class BlockOfBlocks(layers.Layer):
    def __init__(self, filters, **options):
        super().__init__(**options)
        self.filters, self.block = filters, Block(filters, 2, "Norm")

    def build(self, shape):
        self.block.build(shape)

    def call(self, x):
        return self.block(x)

    def compute_output_shape(self, shape):
        return self.block.compute_output_shape(shape)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


def network(*stages, before=(), side=32, channels=3, name="small"):
    """A classifier: layers before it, these stages or four convolutions of stride 2, and global pooling."""
    stages = stages or [layers.Conv2D(4 + n, 3, 2, padding="same", activation="relu", name=f"c{n}") for n in range(4)]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(5)]
    return keras.Sequential([keras.Input((side, side, channels)), *before, *stages, *head], name=name)


def of_blocks():
    return network(Block(4, 4, name="first"), BlockOfBlocks(6, name="second"), Block(8, 2, name="third"))


def detector(backbone, **options):
    return fast_rcnn(backbone, CLASSES, **{"fc_units": (7,), "dropout": 0.0, "roi_pooling": "portable", **options})


def norms(model):
    return [part for part in model._flatten_layers() if isinstance(part, layers.BatchNormalization)]


def saved_and_loaded(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def copied(model, folder):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


# --- batch normalisation inside composite layers ----------------------------------------------------------------------


@pytest.mark.parametrize("then", [lambda model, folder: model, saved_and_loaded, copied])
@pytest.mark.parametrize("options", [{"stride": 16}, {"stride": 8, "head": "reuse"}, {"finetune_from": "second"}])
def test_batch_normalization_inside_layers_is_frozen(tmp_path, then, options):
    model = then(detector(of_blocks(), **options), tmp_path)
    assert len(norms(model)) == 3
    before = {part.path: part.get_weights() for part in norms(model)}
    frozen = "second" if "finetune_from" in options else None
    weights = {layer.name: layer.get_weights() for layer in model.get_layer("convolutions").layers}
    model.compile(keras.optimizers.SGD(0.01), multi_task_loss(model), jit_compile=False)
    inputs = some_inputs(height=64, width=96)
    model.fit(inputs, targets_for(inputs), epochs=2, verbose=0)
    for part in norms(model):
        assert not part.trainable
        for found, expected in zip(part.get_weights(), before[part.path], strict=True):
            np.testing.assert_array_equal(found, expected)
    moved = {
        layer.name: any((found != old).any() for found, old in zip(layer.get_weights(), old_weights, strict=True))
        for layer, old_weights in zip(model.get_layer("convolutions").layers, weights.values(), strict=True)
    }
    assert moved["second"]
    assert moved["first"] is (frozen is None)


def test_a_composite_layer_among_fully_connected_layers_is_refused():
    @keras.saving.register_keras_serializable(PACKAGE)
    class DenseBlock(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.dense = layers.Dense(6)

        def call(self, x):
            return self.dense(x)

    chain = [layers.Conv2D(4, 3, 4, padding="same"), layers.MaxPooling2D(), layers.Flatten()]
    stacked = keras.Sequential([keras.Input((32, 32, 3)), *chain, DenseBlock(name="mine"), layers.Dense(5)])
    with pytest.raises(InputError, match=r"^head: found mine \(DenseBlock\), .*; use new layers \(head='fc'\)$"):
        detector(stacked)
    assert detector(stacked, head="fc", stride=4).get_layer("fc6").units == 7


# --- constants and statistics of other layers -------------------------------------------------------------------------


def adapted():
    normalization = layers.Normalization(name="normalization")
    normalization.adapt(np.random.default_rng(0).uniform(50, 90, (40, 8, 8, 3)))
    return network(before=[normalization])


def test_adapted_normalization_is_copied(tmp_path):
    """Keras's set_weights leaves the mean and the variance that the layer computes with as they were."""
    given = adapted()
    images = np.random.default_rng(1).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    expected = keras.Model(given.inputs[0], given.get_layer("c3").output)(images).numpy()
    model = detector(given)
    for each in (model, with_factors(model, {"fc6": 2}), saved_and_loaded(model, tmp_path)):
        np.testing.assert_allclose(each.get_layer("convolutions")(images), expected, rtol=1e-4, atol=1e-5)


@keras.saving.register_keras_serializable(PACKAGE)
class RunningMean(layers.Layer):
    """Statistics of its own, which `trainable` does not stop."""

    def build(self, shape):
        self.mean = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False)

    def call(self, x, training=False):
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * keras.ops.mean(x, axis=(0, 1, 2)))
        return x - self.mean


@keras.saving.register_keras_serializable(PACKAGE)
class Constant(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight(shape=(shape[-1],), initializer="ones", trainable=False)

    def call(self, x, training=False):
        return x * self.table


def test_layers_whose_statistics_cannot_be_frozen_are_refused():
    spectral = layers.SpectralNormalization(layers.Conv2D(4, 3, 2, padding="same"), name="spectral")
    for layer, kind in ((RunningMean(name="mine"), "RunningMean"), (spectral, "SpectralNormalization")):
        with pytest.raises(
            InputError, match=rf"^backbone: found {layer.name} \({kind}\), whose weights change in every"
        ):
            detector(network(before=[layer]))
    detector(network(before=[Constant()]), stride=16)


# --- augmentation -----------------------------------------------------------------------------------------------------

AUGMENTATION = {
    "flip": lambda: [layers.RandomFlip()],
    "rotation": lambda: [layers.RandomRotation(0.3), layers.RandomTranslation(0.3, 0.3), layers.RandomZoom(0.5)],
    "always": lambda: [layers.RandomFlip("horizontal"), layers.RandomShear(0.4, 0.4), layers.RandomPerspective(1.0)],
    "erasing": lambda: [layers.RandomErasing(1.0), layers.RandomBrightness(0.5), layers.RandomContrast(0.5)],
    "policy": lambda: [layers.RandAugment(), layers.MixUp(), layers.CutMix()],
    "pipeline": lambda: [layers.Pipeline([layers.RandomFlip(), layers.Rescaling(0.5)]), layers.Rescaling(2.0)],
    "sequential": lambda: [keras.Sequential([layers.RandomFlip(), layers.RandomRotation(0.2)])],
}


@pytest.mark.parametrize("make", AUGMENTATION.values(), ids=AUGMENTATION)
def test_augmentation_is_left_out(make):
    keras.utils.set_random_seed(0)
    plain = network()
    augmented = network(*plain.layers[:4], before=make())
    model = detector(augmented)
    convolutions, inputs = model.get_layer("convolutions"), some_inputs()
    expected = keras.Model(plain.inputs[0], plain.layers[3].output)(np.ones((1, 32, 32, 3), np.float32) * 200)
    np.testing.assert_allclose(convolutions(np.full((1, 32, 32, 3), 200.0)), expected, rtol=1e-5)
    first = model(inputs, training=True)
    for _ in range(3):
        np.testing.assert_array_equal(model(inputs, training=True)["class_logits"], first["class_logits"])


@keras.saving.register_keras_serializable(PACKAGE)
class Jitter(layers.Layer):
    """Augmentation of one's own: a plain layer."""

    def call(self, x, training=False):
        return keras.ops.roll(x, keras.random.randint((), 1, 9), axis=1) if training else x


@keras.saving.register_keras_serializable(PACKAGE)
class Stem(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.flip, self.convolution = layers.RandomFlip(name="flip"), layers.Conv2D(4, 3, 2, padding="same")

    def build(self, shape):
        self.convolution.build(shape)

    def call(self, x, training=None):
        return self.convolution(self.flip(x, training=training))


def test_augmentation_that_cannot_be_left_out_is_refused():
    with pytest.raises(
        InputError, match=r"^backbone: found mine \(Jitter\), which varies images at random in training"
    ):
        detector(network(before=[Jitter(name="mine")]))
    with pytest.raises(InputError, match=r"^backbone: found flip \(RandomFlip\) inside stem, which moves images"):
        detector(network(before=[Stem(name="stem")]))


def test_dropout_and_noise_stay():
    """They vary features, not where things are."""
    model = detector(network(before=[layers.GaussianNoise(0.1), layers.SpatialDropout2D(0.5)]))
    names = [type(layer).__name__ for layer in model.get_layer("convolutions").layers]
    assert names[1:3] == ["GaussianNoise", "SpatialDropout2D"]


# --- images of another size -------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(PACKAGE)
class To32(layers.Layer):
    def call(self, x):
        return keras.ops.image.resize(x, (32, 32))

    def compute_output_shape(self, shape):
        return (shape[0], 32, 32, shape[-1])


@keras.saving.register_keras_serializable(PACKAGE)
class Transposed(layers.Layer):
    def call(self, x):
        return keras.ops.transpose(x, (0, 2, 1, 3))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: layers.Resizing(32, 32, name="to"), r"^backbone: found to \(Resizing\), which changes the size"),
        (lambda: layers.CenterCrop(24, 24, name="to"), r"^backbone: found to \(CenterCrop\), which changes the size"),
        (lambda: layers.RandomCrop(24, 24, name="to"), r"^backbone: found to \(RandomCrop\), which changes the size"),
        (To32, r"^backbone: found small, .* \(512x1024 pixels become 2x2 cells\)"),
        (lambda: layers.Reshape((32, 32, 3)), r"^backbone: found .*, whose feature maps do not follow the size"),
        (lambda: layers.Permute((2, 1, 3)), r"^backbone: found small, .* \(512x1024 pixels become 64x32 cells\)"),
        (Transposed, r"^backbone: found small, .* \(512x1024 pixels become 64x32 cells\)"),
    ],
)
def test_what_resizes_or_turns_images_is_refused(layer, message):
    with pytest.raises(InputError, match=message):
        detector(network(before=[layer()]))


def test_enlarging_layers_are_part_of_the_stride():
    """Small images enlarged before the first convolution: 16 pixels of the network are 8 of the image."""
    model = detector(network(before=[layers.UpSampling2D()]), stride=8)
    assert model.get_layer("convolutions")(np.zeros((1, 64, 96, 3))).shape == (1, 8, 12, 7)


# --- transformers -----------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(PACKAGE)
class Patches(layers.Layer):
    """Images to sequences in one layer, as in KerasHub's ViT, whose configuration cannot be read back."""

    def __init__(self, size):
        super().__init__(name="patches")
        self.convolution = layers.Conv2D(8, size, size)

    def call(self, x):
        x = self.convolution(x)
        return keras.ops.reshape(x, (-1, x.shape[1] * x.shape[2], 8))


def transformer(patches, blocks=2, after=()):
    x = images = keras.Input((64, 64, 3))
    for layer in patches:
        x = layer(x)
    for _ in range(blocks):
        normalized = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(normalized, normalized)])
        x = layers.Add()([x, layers.Dense(8, "gelu")(layers.LayerNormalization()(x))])
    for layer in after:
        x = layer(x)
    pooled = layers.GlobalAveragePooling2D() if after else layers.GlobalAveragePooling1D()
    return keras.Model(images, layers.Dense(5)(pooled(x)), name="vit")


def strided(*filters):
    return [layers.Conv2D(count, 3, 2, padding="same", activation="relu") for count in filters]


@pytest.mark.parametrize(
    "make",
    [
        lambda: transformer([layers.Conv2D(8, 16, 16), layers.Reshape((16, 8))]),
        lambda: transformer([layers.Conv2D(8, 16, 16), layers.BatchNormalization(), layers.Reshape((-1, 8))], 1),
        lambda: transformer([Patches(16)]),
        lambda: transformer([*strided(4, 4, 4, 8), layers.Reshape((-1, 8))], blocks=6),
    ],
    ids=["functional", "normalised patches", "own layer", "convolutional stem"],
)
def test_transformers_are_refused(make):
    with pytest.raises(InputError, match=r"^backbone: found vit, which processes images as sequences of patches"):
        detector(make())


def test_a_transformer_that_returns_to_a_map_of_one_size_is_refused():
    patches, after = [layers.Conv2D(8, 16, 16), layers.Reshape((16, 8))], [layers.Reshape((4, 4, 8))]
    with pytest.raises(
        InputError, match=r"^backbone: found .*, whose feature maps do not follow the size of the images"
    ):
        detector(transformer(patches, after=after))


def test_attention_over_the_cells_of_a_convolutional_network_is_its_head():
    model = detector(transformer([*strided(16, 16, 16, 8), layers.Reshape((-1, 8))], blocks=1))
    assert model.get_layer("convolutions").outputs[0].shape == (None, None, None, 8)


# --- layouts of images, outputs, layers that cannot be copied ---------------------------------------------------------


@keras.saving.register_keras_serializable(PACKAGE)
class NoConfig(layers.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return x * self.factor


@keras.saving.register_keras_serializable(PACKAGE)
class Forgetful(layers.Layer):
    """Its configuration lacks what it was made with, so a copy computes something else."""

    def __init__(self, factor=1.0, **options):
        super().__init__(**options)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return super().get_config()


def channels_first():
    options = {"padding": "same", "data_format": "channels_first"}
    stages = [layers.Conv2D(4, 3, 2, name=f"c{n}", **options) for n in range(4)]
    head = [layers.GlobalAveragePooling2D(data_format="channels_first"), layers.Dense(5)]
    return keras.Sequential([keras.Input((3, 32, 32)), *stages, *head])


def two_outputs():
    given = network()
    return keras.Model(given.inputs, [given.outputs[0], layers.Dense(2)(given.layers[-2].output)], name="double")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: network(channels=1),
            r"^backbone: found input shape \(None, 32, 32, 1\) in small; expected images of 3",
        ),
        (
            lambda: network(channels=4),
            r"^backbone: found input shape \(None, 32, 32, 4\) in small; expected images of 3",
        ),
        (channels_first, r"^backbone: found c0 with data_format 'channels_first'; expected 'channels_last'"),
        (two_outputs, r"^backbone: found 2 outputs in double; expected one, the class scores"),
        (lambda: keras.Sequential([keras.Input((9,)), layers.Dense(2)]), r"^backbone: found input shape \(None, 9\)"),
        (
            lambda: network(before=[layers.Lambda(lambda x: x / 2, name="half")]),
            r"^backbone: found the Lambda layer half",
        ),
        (
            lambda: network(before=[NoConfig(0.1)]),
            r"^backbone: found layer no_config \(NoConfig\), which cannot be made ",
        ),
        (
            lambda: network(before=[Forgetful(0.1)]),
            r"^backbone: found that a copy of small .* \(own layers: Forgetful\)",
        ),
    ],
)
def test_what_a_detector_cannot_be_built_from_is_one_line(make, message):
    with pytest.raises(InputError, match=message) as caught:
        detector(make())
    assert len(str(caught.value)) < 420


def test_grey_networks_work_with_a_layer_that_makes_images_grey():
    @keras.saving.register_keras_serializable(PACKAGE)
    class Grey(layers.Layer):
        def call(self, x):
            return keras.ops.mean(x, axis=-1, keepdims=True)

    inputs = some_inputs()
    assert detector(network(channels=1), preprocessing=Grey())(inputs)["class_logits"].shape == (2, 6, CLASSES + 1)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: layers.RandomFlip(name="flip"), r"^preprocessing: found flip \(RandomFlip\); expected a layer that"),
        (
            lambda: keras.Sequential([layers.Rescaling(0.1), layers.RandomZoom(0.1, name="zoom")]),
            r"^preprocessing: found zoom \(RandomZoom\)",
        ),
        (lambda: layers.Resizing(32, 32, name="to"), r"^preprocessing: found to \(Resizing\)"),
        (lambda: layers.Lambda(lambda x: x / 2, name="half"), r"^preprocessing: found half \(Lambda\)"),
        (To32, r"^preprocessing: found To32 with outputs of shape \(None, 32, 32, 3\)"),
    ],
)
def test_preprocessing_that_moves_images_is_refused(layer, message):
    with pytest.raises(InputError, match=message):
        detector(network(), preprocessing=layer())


def test_a_training_run_refuses_before_it_writes(tmp_path, prepared_digits):
    with pytest.raises(InputError, match=r"^backbone: found input shape \(None, 32, 32, 1\)"):
        frcnn.train(prepared_digits[0], tmp_path / "run", backbone=network(channels=1), progress=False)


def test_the_given_network_keeps_its_own_normalization_and_augmentation():
    given = network(Block(4, 16), before=[layers.RandomFlip()])
    detector(given)
    assert all(part.trainable for part in norms(given))
    assert type(given.layers[0]) is layers.RandomFlip
    assert cut_at_roi_pooling(given).convolutions.layers[-1].output.shape[1:] == (2, 2, 4)
