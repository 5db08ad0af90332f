"""Model cards: what people should read before they trust a model, made from its manifest."""

from __future__ import annotations

import textwrap
from pathlib import Path

from LiverCascadeLib.channels import CONTRAST_BLUR_MM, CONTRAST_HU
from LiverCascadeLib.models import Calibration, Manifest, load_manifest

from .card_proofs import proof_sections

CARD = "MODEL_CARD.md"

_PURPOSE = {
    "locate": "Finds the liver on a whole CT at low resolution, so that a refine model can work inside its box.",
    "refine": "Segments liver and lesions inside the box that a locate model found.",
    "livercascade-context-1": "Segments liver and lesions inside the box that a locate model found, coarsely, in "
    "wide windows, before a refine model.",
    "classify": "Says whether a located liver holds lesions at all, as a gate for what a refine model finds in it.",
}
_FEATURES = {
    "mean_logit": "mean probability of lesion, as a logit",
    "peak_logit": "highest probability of lesion, as a logit",
    "halo_logit": "mean probability over the lesion with its halo, as a logit",
    "entropy": "mean entropy of the classes in the lesion, 0…1",
    "log_diameter": "volume-equivalent diameter, ln mm",
    "log_slice": "distance of the slices, ln mm",
    "mirror_spread": "deviation over mirrored copies",
}
_EMBEDDED_LIMITS = """\
* Trained on few real scans and on synthetic ones; every lesion that it has seen in training is synthetic. Expect it
  to be worse on scans unlike those above: other scanners, children, large ascites, earlier surgery, cirrhosis with a
  distorted liver, devices in the liver.
* The network that finds lesions cannot tell benign from malignant. A mask does not prove a tumor, and an empty mask
  does not exclude one. Lesions below 10 mm, and bright ones below 20 mm, are hardly ever found, and those that bulge
  at the capsule may be taken for what lies outside.
* A vena cava that is darker than the liver, and bowel or muscle beside it, may be called a lesion.
* Hearts on unenhanced scans: on the two that were looked at most of the heart was taken for liver, until both were
  trained on. On others expect it, and correct it.
* A cascade that was trained without chaos_03 and ts_example, and much shorter than this one, found their livers with
  a Dice of 0.938 and 0.868, the second one a fifth too large, and no lesion in either. The figures of what was trained
  on are better than what a new scan will show.
* CT only, in Hounsfield units. Not MR, not ultrasound, not cone-beam CT.
* One expert's labels, or another program's, stand behind the figures; on so few cases they show that the path works,
  not how well it will do elsewhere."""
_LIMITS = """\
* Expect it to be worse on scans unlike those that it was trained on: other scanners, contrast phases, children, large
  ascites, earlier surgery, cirrhosis with a distorted liver, devices in the liver.
* The network cannot tell benign from malignant. A mask does not prove a tumor, and an empty mask does not exclude one.
* CT only, in Hounsfield units. Not MR, not ultrasound, not cone-beam CT.
* Figures that chose the weights, such as those of the validation, are better than what new scans will show. Judge the
  model on scans that had no part in its training before you rely on it."""
_EMBEDDED_HISTORY = """
Never trained on: 3D-IRCADb-01 case 17, and its LiTS twins. Every look at the accuracy on case 17 is logged here.
Candidates were made by what they did on the other cases. Looks 5 and 6 also had a part in the choice of a rule that is
no longer in use, look 8 in that of the limit of 0.98, which lost no lesion that 0.95 shows and had fewer false ones on
the cases that it was chosen on (on the calibration's scans of then it lost 3 real lesions of 56), and look 10 decided
that the weights of then were delivered. Looks 11 to 13 decided nothing: the weights and the limit were chosen on the
calibration's scans:

1. after `refine-tune`: liver Dice 0.945, 2 of 2 lesions, 5 false;
2. the same weights, with the rule that a lesion must touch liver: no change;
3. after `refine-priors`: liver Dice 0.948, 1 of 2 lesions, 4 false;
4. after `refine-patchy`: liver Dice 0.950, HD95 7.1 mm, 2 of 2 lesions, 3 false;
5. the context model before it, equal says on lesions: liver Dice 0.954, HD95 6.4 mm, 2 of 2 lesions, none false;
6. the larger share of lesion of both: the same liver, 2 of 2 lesions, 4 false;
7. four fifths for the refine model: the same liver, 2 of 2 lesions, 2 false;
8. after `locate-reviewed`, `context-lesions` and `refine-lesions`, equal says, lesions from a peak of 0.95: liver Dice
   0.952, HD95 7.2 mm, 2 of 2 lesions, 4 false;
9. the same, lesions from a peak of 0.98: the same liver, 2 of 2 lesions, 4 false;
10. after `context-shaped` and `refine-shaped`: liver Dice 0.954, HD95 6.4 mm, 2 of 2 lesions, none false, lesion Dice
    0.521;
11. after `context-small-lesions` and `refine-small-lesions`, lesions from a confidence of 0.5: liver Dice 0.954, HD95
    6.4 mm, 2 of 2 lesions, 3 false, lesion Dice 0.559;
12. after `context-visible` and `refine-visible`: liver Dice 0.958, HD95 4.8 mm, 2 of 2 lesions, 2 false, lesion Dice
    0.533;
13. the mean of these and of `context-neighbors` and `refine-neighbors`, as it is now: see below.
"""
# What is known about the models that come with the extension, and about no other.
_EMBEDDED = {"livercascade-locate-1", "livercascade-context-1", "livercascade-refine-1"}


_CONTRAST = (
    f"; liver_contrast: {CONTRAST_HU / 2:g} HU either side of the located liver's median to 0…1, smoothed by "
    f"{CONTRAST_BLUR_MM:g} mm"
)


def write_card(folder: Path) -> None:
    """Writes ``MODEL_CARD.md`` beside the manifest in ``folder``."""
    (folder / CARD).write_text(card_text(load_manifest(folder)), encoding="utf-8")


def card_text(manifest: Manifest) -> str:
    """The card in Markdown."""
    spacing = " × ".join(f"{s:g}" for s in manifest.spacing_mm)
    patch = " × ".join(map(str, manifest.patch_size))
    low, high = manifest.window_hu
    sources = "\n".join(f"* {line}" for line in manifest.training_data) or "* not recorded"
    embedded = manifest.id in _EMBEDDED
    history, limits = (_EMBEDDED_HISTORY, _EMBEDDED_LIMITS) if embedded else ("", _LIMITS)
    purpose = _PURPOSE.get(manifest.id, _PURPOSE[manifest.role])
    kind = "of MONAI" if embedded else "network"
    contrast = _CONTRAST if "liver_contrast" in manifest.inputs else ""
    return f"""\
# {manifest.title}

{purpose}

**{manifest.intended_use}**

| | |
|---|---|
| id | `{manifest.id}`, version {manifest.version} |
| network | {manifest.architecture} {kind}: {", ".join(manifest.inputs)} in, {", ".join(manifest.labels)} out |
| grid | {spacing} mm, windows of {patch} voxels along R, A, S |
| intensities | {low:g}…{high:g} HU to 0…1{contrast} |
| weights | `{manifest.weights_file}`, SHA-256 `{manifest.weights_sha256}` |
| license of the weights | {manifest.license} |
| training | {_training(manifest.measured)} |

## Training data

{sources}
{history}
## Measured

{_table(manifest.measured)}

Dice is 2 |P ∩ R| / (|P| + |R|) on the grid of the input; HD95 the 95th percentile of the distances between both
surfaces. A reference lesion counts as found when its IoU with all predicted lesions that touch it is above 0.1; a
predicted lesion that touches none is false. Figures of the whole cascade, all models together.
{_confidence(manifest)}{proof_sections(manifest.measured)}
## Limits

{limits}
"""


def _training(measured: dict) -> str:
    steps = f"{measured.get('training_steps', 'unknown')} steps"
    parts = ", ".join(f"`{digest[:12]}`" for digest in measured.get("mean_of", ()))
    return f"{steps}; the mean of the weights {parts}, of which the last had these steps" if parts else steps


def _table(measured: dict) -> str:
    cases = measured.get("cascade")
    if not cases:
        return _validated(measured.get("validation")) or "Not measured yet."
    lines = [
        f"Measured {measured.get('date', '')} on:",
        "",
        "| case | | liver Dice | liver HD95 | lesions found | false lesions | lesion Dice |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, figures in cases.items():
        told = "hit" in figures
        hits = f"{figures['hit']} of {figures['lesions']}" if told else "not labeled"
        false = str(figures["false"]) if told else f"{figures['predicted']} predicted"
        lesion = f"{figures['lesion_dice']:.3f}" if told and figures["lesions"] else "–"
        distance = f"{figures['liver_hd95_mm']:.1f} mm" if "liver_hd95_mm" in figures else "–"
        lines.append(
            f"| {name} | {figures['note']} | {figures['liver_dice']:.3f} | {distance} | {hits} | {false} | {lesion} |"
        )
    return "\n".join(lines)


def _validated(figures: dict | None) -> str:
    """What the validation during training said; nothing where there was none."""
    if not figures:
        return ""
    titles = {
        "dice_liver": "Dice of the liver, mean over cases",
        "dice_lesion": "Dice of lesions, mean over cases that have any",
        "dice_lesion_pooled": "Dice of lesions, all cases as one mask",
    }
    lines = [f"| {title} | {figures[name]:.3f} |" for name, title in titles.items() if name in figures]
    text = "By the validation during training, which chose the weights, on the network's own grid:"
    return "\n".join([text, "", "| | |", "|---|---|", *lines])


def _confidence(manifest: Manifest) -> str:
    """The section on the confidence of lesions; nothing for models that find none."""
    if "lesion" not in manifest.labels:
        return ""
    title = "\n## Confidence of lesions\n\n"
    calibration = manifest.calibration
    if calibration is None:
        return f"{title}Not calibrated: its lesions have no confidence.\n"
    return title + _calibration_text(calibration, manifest.min_lesion_confidence)


def _calibration_text(calibration: Calibration, least: float) -> str:
    terms = "\n".join(
        f"| {_FEATURES[name]} (`{name}`) | {coefficient:+.3f} | {low:.2f}…{high:.2f} |"
        for name, coefficient, (low, high) in zip(
            calibration.features, calibration.coefficients, calibration.ranges, strict=True
        )
    )
    bins = "\n".join(
        f"| {row.low:.2f}…{row.high:.2f} | {row.count} | {row.mean_confidence:.2f} | {row.observed:.2f} |"
        for row in calibration.reliability
    )
    risks = "\n".join(
        f"| {row.coverage:.0%} | {row.threshold:.2f} | {row.risk:.2f} |" for row in calibration.risk_coverage
    )
    found_out = (
        f"Fitted {calibration.date} to {calibration.lesions_fitted} lesions that the cascade found on "
        f"{calibration.fitted_on}. "
        "None of these scans and livers was trained on; the organs around them come from the label maps that the "
        "training bodies were built around. A lesion is real where its IoU with a true lesion is above "
        f"{calibration.real_iou:g}. For the figures below each half of the scans was judged by a score fitted to the "
        f"other half: {calibration.lesions_tested} lesions that the model shows, of which "
        f"{calibration.real_share:.0%} are real. Expected calibration error "
        f"{calibration.expected_calibration_error:.3f}; area under the curve {calibration.area_under_curve:.3f}."
    )
    held_back = f" What has less than {least:g} is shown as liver, unless another limit is asked for." if least else ""
    return f"""\
**{calibration.note}** It is called confidence, and is no probability for a patient's lesion.{held_back}

The score is 1 / (1 + exp(−(intercept + Σ coefficient · feature))), with an intercept of {calibration.intercept:+.3f}:

| feature | coefficient | range in the fit |
|---|---|---|
{terms}

Features beyond their range count as its end. A coefficient may have one sign only, so that among lesions that are
equal in everything else the larger one is never less sure; one near 0 means that the others say it already.

{textwrap.fill(found_out, 119)}

Reliability, in bins of as many lesions each:

| confidence | lesions | mean confidence | share that is real |
|---|---|---|---|
{bins}

Risk and coverage: of the lesions that are kept, the surest first, the share that is not real.

| lesions kept | confidence at least | not real |
|---|---|---|
{risks}
{_limits_text(calibration)}"""


def _limits_text(calibration: Calibration) -> str:
    """What other limits of confidence would find, where it was counted."""
    if not calibration.limits:
        return ""
    rows = "\n".join(
        f"| {row.threshold:g} | {row.recall_below_10_mm:.2f} | {row.recall_10_to_20_mm:.2f} "
        f"| {row.recall_above_20_mm:.2f} | {row.false_per_case:.2f} | {row.healthy_with_false} |"
        for row in calibration.limits
    )
    few, some, many = calibration.true_lesions
    return f"""
What other limits of confidence show on the same scans: recall by the long axis of true lesions, false lesions per
scan, and how many of the {calibration.healthy_cases} healthy livers get one.

| confidence from | <10 mm ({few}) | 10–20 mm ({some}) | >20 mm ({many}) | false per scan | healthy with any |
|---|---|---|---|---|---|
{rows}
"""
