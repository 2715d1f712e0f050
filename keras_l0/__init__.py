"""Keras 3 networks made small: regularization, pruning, sparse TFLite files."""

from keras_l0.attach import regularize as regularize
from keras_l0.composite import Composite as Composite
from keras_l0.export.explain import explain_sparsity as explain_sparsity
from keras_l0.export.tflite import export_tflite as export_tflite
from keras_l0.filter_penalties import GradientCount as GradientCount
from keras_l0.filter_penalties import RedundancyPenalty as RedundancyPenalty
from keras_l0.optimizers import RelevanceDecay as RelevanceDecay
from keras_l0.pruning.callbacks import GlobalPrune as GlobalPrune
from keras_l0.pruning.callbacks import LayerwisePrune as LayerwisePrune
from keras_l0.pruning.callbacks import RandomPrune as RandomPrune
from keras_l0.pruning.iterative import IterativePrune as IterativePrune
from keras_l0.pruning.keep import KeepZeros as KeepZeros
from keras_l0.pruning.neuron_callback import NeuronPrune as NeuronPrune
from keras_l0.pruning.once import prune as prune
from keras_l0.regularizers import L2L0 as L2L0
from keras_l0.regularizers import largest_alpha as largest_alpha
from keras_l0.regularizers import scaling_factor as scaling_factor
from keras_l0.regularizers import zero_attraction as zero_attraction
from keras_l0.report.summary import summarize as summarize
from keras_l0.report.sweep import sweep as sweep
from keras_l0.scheme import compress as compress
from keras_l0.structure.shrink import shrink as shrink
