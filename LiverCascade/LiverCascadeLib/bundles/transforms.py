"""Which of MONAI's transforms and inferers are covered, with which arguments. Anything else is refused by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import ModelError
from .config import Component, Config
from .options import Options
from .plan import Normalize, Rescale, Step, Stretch, Triple

_ORIENTATIONS = ("RAS", "LPS")
_MODULES = {"transforms": "monai.transforms", "inferers": "monai.inferers"}


@dataclass
class Preprocessing:
    """What the list of transforms says; see :class:`.plan.Plan`.

    Attributes:
        image: the key under which the image travels.
    """

    image: str = ""
    orientation: str = "stored"
    spacing: Triple | None = None
    before: list[Step] = field(default_factory=list)
    after: list[Step] = field(default_factory=list)
    crop_above_zero: bool = False

    def add(self, step: Step) -> None:
        """One more change of the values."""
        if self.crop_above_zero:
            raise ModelError("its CropForegroundd comes before the values are changed, and only the end is covered.")
        (self.before if self.spacing is None else self.after).append(step)


@dataclass
class Postprocessing:
    """From outputs to labels: 'softmax' or 'sigmoid', and from which probability on an output draws."""

    activation: str = ""
    threshold: float | None = None
    argmax: bool = False


@dataclass(frozen=True)
class Inferer:
    """How windows go over the image; see :class:`.plan.Plan`."""

    patch_size: tuple[int, int, int]
    overlap: Triple
    gaussian: bool
    sigma: Triple
    padding: str
    padding_value: float


def read_preprocessing(config: Config) -> Preprocessing:
    """What happens to the image before the network.

    Raises:
        ModelError: something in it is not covered.
    """
    draft = Preprocessing()
    for component in _transforms(config, "preprocessing"):
        reader = _before(component)
        options = Options(config, component)
        if reader is None:
            continue
        keys = options.keys()
        if not draft.image and component.name == "LoadImaged":
            draft.image = keys[0]
        if draft.image and draft.image not in keys:
            # It changes something else, such as a label that is not there when a patient is examined.
            continue
        options.ignore("allow_missing_keys", "lazy")
        reader(options, draft)
        options.finish()
    if not draft.image:
        raise ModelError("its preprocessing has no LoadImaged, so that it is not known what the image is.")
    return draft


def read_postprocessing(config: Config) -> Postprocessing:
    """How outputs become labels.

    Raises:
        ModelError: something in it is not covered, or it does not say so.
    """
    found = Postprocessing()
    for component in _transforms(config, "postprocessing"):
        if component.name in _HARMLESS_AFTER:
            continue
        options = Options(config, component)
        if component.name == "Activationsd":
            _activation(options, found)
        elif component.name == "AsDiscreted":
            _decision(options, found)
        elif component.name == "Invertd":
            _inversion(options)
        else:
            known = ", ".join(("Activationsd", "AsDiscreted", "Invertd", *_HARMLESS_AFTER))
            raise ModelError(
                f"its postprocessing has '{component.path}' ({component.place}), which may change the labels and is "
                f"not covered here; known are {known}."
            )
        options.finish()
    if found.argmax == (found.threshold is not None):
        raise ModelError("its postprocessing does not say whether labels are an argmax or a threshold of the outputs.")
    if (found.activation or "softmax") != ("softmax" if found.argmax else "sigmoid"):
        raise ModelError(f"its postprocessing joins {found.activation} with {_how(found)}, which is not covered here.")
    if not found.argmax and not found.activation:
        raise ModelError("its postprocessing compares the network's raw output with a threshold; it lacks a sigmoid.")
    return found


def read_inferer(config: Config) -> Inferer:
    """How windows go over the image.

    Raises:
        ModelError: it is none of windows, or something in it is not covered.
    """
    component = config.component("@inferer", "inferer")
    _check_module(component, "inferers")
    if component.name not in ("SlidingWindowInferer", "SlidingWindowInfererAdapt"):
        raise ModelError(
            f"its inferer is '{component.path}', and only SlidingWindowInferer is covered here: a whole CT in one "
            "piece does not fit into memory."
        )
    options = Options(config, component)
    options.ignore("sw_batch_size", "sw_device", "device", "progress", "cache_roi_weight_map", "cpu_thresh")
    options.ignore("buffer_steps", "buffer_dim")
    options.only("with_coord", False)
    size = options.triple("roi_size")
    if any(n < 1 or n != int(n) for n in size):
        raise ModelError(f"its inferer's roi_size is {list(size)}, expected whole numbers of voxels above 0.")
    overlap = options.triple("overlap", 0.25)
    if any(not 0 <= share < 1 for share in overlap):
        raise ModelError(f"its inferer's overlap is {list(overlap)}, expected shares from 0 to below 1.")
    found = Inferer(
        patch_size=tuple(int(n) for n in size),
        overlap=overlap,
        gaussian=options.only("mode", "constant", "gaussian") == "gaussian",
        sigma=options.triple("sigma_scale", 0.125),
        padding=options.only("padding_mode", "constant", "replicate"),
        padding_value=float(options.number("cval", 0.0)),
    )
    options.finish()
    return found


def _transforms(config: Config, place: str) -> list[Component]:
    """The members of a Compose, lists within lists included, without those that are switched off."""
    if not config.has(place):
        raise ModelError(f"its configuration has no '{place}'.")
    found: list[Component] = []
    _collect(config, f"@{place}", place, found)
    return found


def _collect(config: Config, value: object, place: str, found: list[Component]) -> None:
    component = config.component(value, place)
    _check_module(component, "transforms")
    arguments = dict(component.arguments)
    if config.plain(arguments.pop("_disabled_", False), place) in (True, "true", "True"):
        return
    if component.name != "Compose":
        found.append(Component(component.name, component.path, arguments, place))
        return
    members = config.items(arguments.pop("transforms", []), f"{place}#transforms")
    if config.plain(arguments.get("overrides"), place) is None:
        arguments.pop("overrides", None)
    left = sorted(set(arguments) - {"map_items", "unpack_items", "log_stats", "lazy"})
    if left:
        raise ModelError(f"its {place} is a Compose with the argument '{left[0]}', which is not covered here.")
    for n, member in enumerate(members):
        _collect(config, member, f"{place}#transforms#{n}", found)


def _check_module(component: Component, kind: str) -> None:
    """A name counts only where it is MONAI's own: a bundle may bring a class of the same name along."""
    module = component.path.rpartition(".")[0]
    if module and module != _MODULES[kind] and not module.startswith(f"{_MODULES[kind]}."):
        raise ModelError(
            f"its {component.place} is made by '{component.path}': code of the bundle's own or of another package, "
            "which is never run. Only MONAI's own are known here."
        )


Reader = Callable[[Options, Preprocessing], None]


def _before(component: Component) -> Reader | None:
    """What reads a transform before the network; None where it changes nothing."""
    if component.name in _HARMLESS_BEFORE:
        return None
    if component.name not in _BEFORE:
        raise ModelError(
            f"its preprocessing has '{component.path}' ({component.place}), which is not covered here; known are "
            f"{', '.join((*_BEFORE, *_HARMLESS_BEFORE))}."
        )
    return _BEFORE[component.name]


def _load(options: Options, draft: Preprocessing) -> None:
    options.only("affine_lps_to_ras", True)
    options.ignore("reader", "dtype", "meta_keys", "meta_key_postfix", "overwriting", "image_only")
    options.ignore("ensure_channel_first", "simple_keys", "prune_meta_pattern", "prune_meta_sep", "expanduser")


def _orient(options: Options, draft: Preprocessing) -> None:
    if draft.spacing is not None:
        raise ModelError("its Orientationd comes after its Spacingd, and only the other order is covered here.")
    draft.orientation = options.only("axcodes", *_ORIENTATIONS)
    options.only("as_closest_canonical", False)
    options.ignore("labels")


def _space(options: Options, draft: Preprocessing) -> None:
    if draft.spacing is not None:
        raise ModelError("its preprocessing has Spacingd twice.")
    spacing = options.triple("pixdim")
    if min(spacing) <= 0:
        raise ModelError(f"its Spacingd has pixdim = {list(spacing)}, expected millimetres above 0.")
    options.only("mode", "bilinear", 1)
    options.only("padding_mode", "border")
    for name in ("diagonal", "scale_extent", "recompute_affine"):
        options.only(name, False)
    options.only("min_pixdim", None)
    options.only("max_pixdim", None)
    options.floats()
    options.ignore("align_corners", "meta_keys", "meta_key_postfix")
    draft.spacing = spacing


def _rescale(options: Options, draft: Preprocessing) -> None:
    low, high = options.number("a_min"), options.number("a_max")
    if not low < high:
        raise ModelError(f"its ScaleIntensityRanged goes from {low} to {high}, expected the lower value first.")
    start, stop = options.number("b_min", None), options.number("b_max", None)
    options.floats()
    draft.add(Rescale(low, high, start, stop, options.switch("clip", False)))


def _normalize(options: Options, draft: Preprocessing) -> None:
    mean, deviation = options.number("subtrahend", None), options.number("divisor", None)
    options.floats()
    # With one channel there is no difference.
    options.ignore("channel_wise")
    draft.add(Normalize(mean, deviation, options.switch("nonzero", False)))


def _stretch(options: Options, draft: Preprocessing) -> None:
    options.only("factor", None)
    options.floats()
    options.ignore("channel_wise")
    draft.add(Stretch(options.number("minv", 0.0), options.number("maxv", 1.0)))


def _crop(options: Options, draft: Preprocessing) -> None:
    if draft.spacing is None:
        raise ModelError("its CropForegroundd comes before its Spacingd, and only the other order is covered here.")
    options.only("source_key", draft.image)
    options.only("select_fn", None)
    options.only("channel_indices", None)
    options.only("margin", 0)
    options.only("k_divisible", 1)
    # How to pad is only asked for with a margin; the rest tells others where the box was.
    options.ignore("mode", "allow_smaller", "start_coord_key", "end_coord_key")
    draft.crop_above_zero = True


def _cast(options: Options, draft: Preprocessing) -> None:
    options.floats()
    options.ignore("data_type", "device", "wrap_sequence", "track_meta")


def _activation(options: Options, found: Postprocessing) -> None:
    chosen = [name for name in ("softmax", "sigmoid") if options.switch(name, False)]
    options.only("other", None)
    options.ignore("keys", "allow_missing_keys")
    if len(chosen) != 1 or found.activation:
        raise ModelError("its postprocessing needs one Activationsd with either softmax or sigmoid.")
    found.activation = chosen[0]


def _decision(options: Options, found: Postprocessing) -> None:
    found.argmax = options.switch("argmax", False)
    threshold = options.number("threshold", None)
    if options.switch("threshold_values", False):
        threshold = options.number("logit_thresh", 0.5)
    options.ignore("keys", "allow_missing_keys", "logit_thresh")
    options.only("to_onehot", None)
    options.only("rounding", None)
    found.threshold = None if found.argmax else threshold


def _inversion(options: Options) -> None:
    options.only("post_func", None)
    options.ignore("keys", "transform", "orig_keys", "meta_keys", "orig_meta_keys", "meta_key_postfix")
    # Either way probabilities are brought back here, and decided on the voxels of the input.
    options.ignore("nearest_interp", "to_tensor", "device", "allow_missing_keys")


def _how(found: Postprocessing) -> str:
    return "an argmax" if found.argmax else f"a threshold of {found.threshold}"


_BEFORE: dict[str, Reader] = {
    "LoadImaged": _load,
    "Orientationd": _orient,
    "Spacingd": _space,
    "ScaleIntensityRanged": _rescale,
    "NormalizeIntensityd": _normalize,
    "ScaleIntensityd": _stretch,
    "CropForegroundd": _crop,
    "CastToTyped": _cast,
    "EnsureTyped": _cast,
}
# They change how data is kept, not what it says.
_HARMLESS_BEFORE = ("EnsureChannelFirstd", "AddChanneld", "ToTensord", "ToDeviced")
_HARMLESS_AFTER = ("SaveImaged", "EnsureTyped", "ToTensord", "ToDeviced", "DeleteItemsd", "CopyItemsd")
