"""The table of what layers and operations there are rules for."""

from typing import Any

import keras
import numpy as np
from keras import layers

from keras_l0.structure.filters import (
    ConvRule,
    DenseRule,
    DepthwiseRule,
    EinsumRule,
    SeparableRule,
    TransposeRule,
)
from keras_l0.structure.parameters import (
    EmbeddingRule,
    NormalizationRule,
    PReLURule,
    RecurrentRule,
)
from keras_l0.structure.rules import (
    Activation,
    Altered,
    Attending,
    Averaging,
    Concatenating,
    Dropping,
    Elementwise,
    Merging,
    Mixing,
    Moving,
    Multiplying,
    Noisy,
    Padding,
    Reducing,
    Rule,
    Same,
    Scaling,
    Spatial,
)


def _rules() -> dict[str, Rule]:
    """A rule for each kind of layer, by its name in ``keras.layers``."""
    kinds: dict[Rule, str] = {
        DenseRule(): "Dense",
        EinsumRule(): "EinsumDense",
        ConvRule(): "Conv1D Conv2D Conv3D",
        TransposeRule(): "Conv1DTranspose Conv2DTranspose Conv3DTranspose",
        DepthwiseRule(): "DepthwiseConv1D DepthwiseConv2D",
        SeparableRule(): "SeparableConv1D SeparableConv2D",
        RecurrentRule(): "LSTM GRU SimpleRNN",
        EmbeddingRule(): "Embedding",
        NormalizationRule(): "BatchNormalization",
        PReLURule(): "PReLU",
        Activation(): "Activation",
        Elementwise(): "ReLU LeakyReLU ELU Identity",
        Same(): "ActivityRegularization",
        Dropping(): "Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianDropout",
        Noisy(): "GaussianNoise AlphaDropout",
        Spatial(): (
            "MaxPooling1D MaxPooling2D MaxPooling3D "
            "AveragePooling1D AveragePooling2D AveragePooling3D "
            "GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D "
            "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D "
            "Cropping1D Cropping2D Cropping3D UpSampling1D UpSampling2D UpSampling3D"
        ),
        Padding(): "ZeroPadding1D ZeroPadding2D ZeroPadding3D",
        Scaling(): "Rescaling",
        Moving(): "Flatten Reshape Permute RepeatVector",
        Merging(np.add): "Add",
        Merging(np.subtract): "Subtract",
        Merging(np.maximum): "Maximum",
        Merging(np.minimum): "Minimum",
        Averaging(): "Average",
        Multiplying(): "Multiply",
        Concatenating(): "Concatenate",
        Mixing(): (
            "LayerNormalization GroupNormalization RMSNormalization UnitNormalization Softmax "
            "Attention AdditiveAttention Dot"
        ),
        Attending(): "MultiHeadAttention GroupQueryAttention",
    }
    return {name: rule for rule, names in kinds.items() for name in names.split()}


_LAYERS = {getattr(layers, name): rule for name, rule in _rules().items()}

_OPERATIONS: dict[str, Rule] = {
    "Add": Merging(np.add),
    "Subtract": Merging(np.subtract),
    "Multiply": Multiplying(),
    "Maximum": Merging(np.maximum),
    "Minimum": Merging(np.minimum),
    "Concatenate": Concatenating(),
    **dict.fromkeys("Transpose ExpandDims Squeeze".split(), Moving()),
    **dict.fromkeys("Mean Max Min".split(), Reducing()),
    **dict.fromkeys(
        (
            "Relu Relu6 LeakyRelu Elu Selu Celu Gelu Silu Sigmoid HardSigmoid HardSilu Tanh "
            "HardTanh Softplus Softsign Negative Absolute Square Exp"
        ).split(),
        Elementwise(),
    ),
}


def rule_of(op: Any) -> Rule:
    """The rule of a layer or an operation; of what is not known, that all channels stay."""
    if isinstance(op, keras.Layer):
        if mode := getattr(op, "quantization_mode", None):
            return Altered(f"it is quantized ({mode})")
        if getattr(op, "lora_enabled", False):
            return Altered("LoRA is enabled")
        # A subclass may compute anything.
        return _LAYERS.get(type(op), Rule())
    if type(op).__module__.startswith("keras."):
        return _OPERATIONS.get(type(op).__name__, Rule())
    return Rule()


def is_sized(op: Any) -> bool:
    """Whether its rule may give it another size."""
    return type(op) in _LAYERS and not isinstance(_LAYERS[type(op)], Mixing)
