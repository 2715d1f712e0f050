"""What of a model is not pruned, why, and what to do about it, in words."""

from keras_l0.pruning.quota import zeros_in
from keras_l0.pruning.targets import Targets, Weight
from keras_l0.text import listed

UNFREEZE = 'Set trainable=True, or pass layers="*/*kernel" to prune frozen kernels too'

MERGE = (
    "Merge LoRA first: save_weights, then load_weights into the same model built without LoRA, "
    "and prune that"
)


def advice(targets: Targets) -> str:
    """What an error says where too few weights can be pruned, what to do first."""
    frozen = [weight for weight in targets.frozen if not weight.has_lora]
    adapted = [weight for weight in targets.frozen if weight.has_lora]
    sentences = []
    if frozen:
        sentences.append(
            f"{UNFREEZE}: {_sum(frozen):,} of {targets.size:,} prunable weights are frozen, in "
            f"{listed(frozen_layers(targets), most=3)}"
        )
    if adapted:
        sentences.append(f"{MERGE}: it is enabled on {_layers(adapted)}")
    if targets.quantized:
        sentences.append(
            f"Prune before `quantize`, which made kernels integers: {_layers(targets.quantized)}"
        )
    if targets.unnamed:
        sentences.append(
            f"Pass {by_name(targets.unnamed)} to prune matrices whose name does not end in "
            f'"kernel": {_names(targets.unnamed)}'
        )
    return ". ".join(sentences[:2]) or "None of its layers has a kernel"


def notes(targets: Targets) -> list[str]:
    """What pruning leaves alone, a line for each reason, for a message at the start."""
    frozen = [weight for weight in targets.frozen if not weight.has_lora]
    adapted = [weight for weight in targets.frozen if weight.has_lora]
    found = []
    if adapted:
        found.append(f"not pruned, LoRA is enabled: {_layers(adapted)}.")
    if frozen:
        found.append(f"frozen, left alone and counted as left: {listed(frozen_layers(targets))}.")
    if targets.quantized:
        found.append(f"skipped, the kernel is quantized: {_layers(targets.quantized)}.")
    if targets.unnamed:
        found.append(
            f'not pruned, the name does not end in "kernel": {_names(targets.unnamed)}. '
            f"{by_name(targets.unnamed)} prunes them too."
        )
    return found


def lora_warning(targets: Targets) -> str | None:
    """What to know before training if zeros are in kernels that LoRA changes; else ``None``."""
    adapted = [weight for weight in targets.frozen if weight.has_lora]
    if not zeros_in(adapted):
        return None
    return (
        f"LoRA is enabled on {_layers(adapted)}: they compute with kernel + alpha / rank · a · b, "
        f"and training changes zeros of that sum. {MERGE}."
    )


def not_held(targets: Targets) -> str | None:
    """Which matrices have zeros that are not held, as they were pruned by name; else ``None``."""
    zeros = [weight for weight in targets.unnamed if zeros_in([weight])]
    if not zeros:
        return None
    return f"zeros of {_names(zeros)} are not kept; {by_name(zeros)} keeps them."


def frozen_layers(targets: Targets) -> list[str]:
    """The outermost layers in which nothing is pruned, of all that is frozen."""
    live = {id(layer) for weight in targets.live for layer in weight.lineage}
    found: dict[str, None] = {}
    for weight in targets.frozen:
        if not weight.has_lora:
            outer = next((one for one in weight.lineage if id(one) not in live), weight.layer)
            found.setdefault(outer.name)
    return list(found)


def by_name(weights: list[Weight]) -> str:
    """The argument that prunes all kernels and these: ``layers=["*/*kernel", "*/w2"]``."""
    names = dict.fromkeys(weight.variable.name for weight in weights)
    patterns = ["*/*kernel", *(f"*/{name}" for name in names)][:4]
    return "layers=[" + ", ".join(f'"{pattern}"' for pattern in patterns) + "]"


def _layers(weights: list[Weight]) -> str:
    return listed(dict.fromkeys(weight.layer.name for weight in weights), most=2)


def _names(weights: list[Weight]) -> str:
    return listed((weight.name for weight in weights), most=2)


def _sum(weights: list[Weight]) -> int:
    return sum(weight.size for weight in weights)
