"""Pieces b, c and d of graas.py: training sets of repeated frames, overfitting to what correlation is left, rivals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from graas_frames import Scene, Trainer, judged
from matplotlib.figure import Figure
from pages import gallery, paragraphs, save, table, verdict

import quietray
from quietray.checkpoint import load_tensors
from quietray.detector.noise.correlation import Correlation, measure_correlation
from quietray.detector.noise.static import NoiseSource, survey_frames
from quietray.detector.response.decorrelate import whiten
from quietray.detector.response.response import PointResponse
from quietray.domains.radiographs import correlated_reach
from quietray.inference.denoiser import Denoiser, Scale
from quietray.simulate.noise import laplace_response
from quietray.splits.base import Split
from quietray.training.batches import TrainingVolume
from quietray.training.loop import Progress, fit
from quietray.training.state import NOT_WHITE
from quietray.types import Radiographs

__all__ = ["Overfitting", "Rivals", "Sets", "correlation_of"]

_STEPS = (
    "Where decorrelated and uncorrelated images have the larger systematic part, the network has not yet learned the "
    "details: shown frames of much larger variance it smooths more. This goes away with steps; the blur of the "
    "detector does not."
)
_HEAD = ("trained on", "method", "MSE", "systematic part", "noise part", "MSE against the blurred truth", "p")


@dataclass(frozen=True)
class Sets:
    """Noise2Self on raw, on decorrelated and on uncorrelated frames of one radiograph.

    Parameters
    ----------
    scene, trainer
        See the classes.
    seeds
        Networks trained on each set; their figures are averaged.
    """

    scene: Scene = field(default_factory=Scene)
    trainer: Trainer = field(default_factory=Trainer)
    seeds: int = 1

    def measure(self, folder: Path) -> dict[str, Any]:
        """Train on the three sets; return errors, dependency on the noise, and correlation before and after."""
        scene = self.scene
        counts = {"raw": scene.raw, "decorrelated": scene.decorrelated, "uncorrelated": scene.uncorrelated}
        frames = {name: scene.logarithm(some) for name, some in counts.items()}
        noisy = {name: judged(None, some, scene) for name, some in frames.items()}
        split = quietray.Noise2Self()
        trained = {
            name: [judged(self.trainer.train(some, split, seed)[0], some, scene) for seed in range(self.seeds)]
            for name, some in frames.items()
        }
        before, after = (correlation_of(counts[name]) for name in ("raw", "decorrelated"))
        save(_maps(before, after), folder / "graas-correlation.png")
        save(self._pictures(noisy, trained), folder / "graas-frames.png")
        maps = {f"{name}\nmean p {trained[name][0]['dependency']:.2f}": trained[name][0]["map"] for name in trained}
        save(gallery(maps, 3, (-1.0, 6.0), 8.0, "viridis", "p"), folder / "graas-dependency.png")
        peak = scene.response.kernel.max(), scene.detector.response.max()
        return {
            "noisy": {name: _figures([one]) for name, one in noisy.items()},
            "trained": {name: _figures(some) for name, some in trained.items()},
            "correlation": {name: _summed(one) for name, one in (("raw", before), ("decorrelated", after))},
            "response": {"estimated": float(peak[0]), "true": float(peak[1])},
            "floored": float((counts["decorrelated"] < scene.gain).mean()),
        }

    def section(self, results: Mapping[str, Any]) -> str:
        """Return this piece of the page; its table holds the rivals, too, where they were run."""
        found, scene = results["b"], self.scene
        trained, noisy, correlation = found["trained"], found["noisy"], found["correlation"]
        ratio = trained["decorrelated"]["mse"] / trained["uncorrelated"]["mse"]
        worse = trained["raw"]["mse"] / trained["decorrelated"]["mse"]
        parts = {key: trained["raw"][key] / trained["decorrelated"][key] for key in ("noise", "systematic")}
        blur = float(((scene.blurred - scene.lines) ** 2).mean())
        p = {name: one["dependency"] for name, one in trained.items()}
        rows = [_row(name, "nothing", one) for name, one in noisy.items()]
        rows += [_row(name, "Noise2Self", one) for name, one in trained.items()]
        rows += [_row("raw", name, one) for name, one in results.get("d", {}).items()]
        summed = correlation["raw"], correlation["decorrelated"]
        claims = [
            verdict(
                "decorrelated has the accuracy of uncorrelated (within 5 % in MSE)",
                abs(ratio - 1) <= 0.05,
                f"{100 * (ratio - 1):+.1f} %",
            ),
            verdict(
                "and its neighbourhood dependency p",
                abs(p["decorrelated"] - p["uncorrelated"]) < 0.1 * p["raw"],
                f"{p['decorrelated']:.2f} against {p['uncorrelated']:.2f}; raw {p['raw']:.2f}",
            ),
            verdict(
                "raw frames give worse images than decorrelated ones", worse > 1.05, f"MSE {worse:.2f} times as large"
            ),
            verdict(
                "they are noisy",
                parts["noise"] > 1.05,
                f"noise part {parts['noise']:.2f} times as large",
            ),
            verdict(
                "they are blurry",
                parts["systematic"] > 1.05,
                f"systematic part {parts['systematic']:.2f} times as large; that of the blur alone is "
                f"{100 * blur / trained['raw']['systematic']:.0f} % of raw's",
            ),
            verdict(
                "the correlation of a pixel with its neighbours is about 350 %, and gone after deconvolution",
                abs(summed[1]["mean"]) < 0.1 * summed[0]["mean"],
                f"{100 * summed[0]['mean']:.0f} % before, {100 * summed[1]['mean']:.0f} % after",
            ),
        ]
        return paragraphs(
            [
                "## b and d. Raw, decorrelated, uncorrelated; and rivals",
                f"{scene.frames} frames of {scene.size} x {scene.size} pixels of one radiograph of a foam, "
                f"{scene.photons:g} photons a pixel, {100 * scene.absorption:.0f} % absorption; a scintillator whose "
                f"point response decays over {scene.spread:g} pixels. It is estimated from the raw frames alone "
                f"(peak {found['response']['estimated']:.4f}, true {found['response']['true']:.4f}). The uncorrelated "
                "frames hold the same photons, had each stayed in its pixel. "
                f"{100 * found['floored']:.3g} % of the whitened samples were under one photon and counted as one. "
                f"U-Net of {' - '.join(map(str, self.trainer.widths))} maps, {self.trainer.steps} steps of "
                f"{self.trainer.batch} patches of {self.trainer.patch} pixels, {self.seeds} network"
                f"{'s' if self.seeds > 1 else ''} for each row.",
                "Errors are of line integrals, against the truth, over all pixels. The systematic part is the error of "
                "the mean of all denoised frames (blur, detail not learned), the noise part the variance from frame to "
                "frame. The neighbourhood dependency p is averaged over the pixels, in a window of 7 x 7; nothing "
                "of the noise is left where it is 0.",
                table(_HEAD, rows),
                table(("seeds/000 says", "measured", "reproduced"), claims),
                "![a frame of each set, and denoised](../images/graas-frames.png)",
                "![the dependency p of every pixel](../images/graas-dependency.png)",
                _STEPS if parts["systematic"] <= 1.05 else "",
                "Summed correlation of every pixel with its 48 neighbours over all frames, before and after:",
                "![correlation maps before and after](../images/graas-correlation.png)",
            ]
        )

    def _pictures(self, noisy: Mapping[str, Any], trained: Mapping[str, Any]) -> Figure:
        scene = self.scene
        panels = {"truth\n": scene.lines} | {f"{name}, a frame\n": one["image"] for name, one in noisy.items()}
        panels["blurred truth\n"] = scene.blurred
        for name, some in trained.items():
            panels[f"{name}, Noise2Self\nMSE {np.mean([one['mse'] for one in some]):.2e}"] = some[0]["image"]
        return gallery(panels, 4, (-0.2, float(scene.lines.max()) + 0.1))


@dataclass(frozen=True)
class Rivals:
    """Other ways to deal with correlated noise, trained on the raw frames.

    Parameters
    ----------
    scene, trainer
        As those of :class:`Sets`.
    judged_on
        Frames that the table's figures come from.
    subsample
        Distance of the pixels of a subimage, of the subsample-denoise-upsample rival.
    """

    scene: Scene = field(default_factory=Scene)
    trainer: Trainer = field(default_factory=Trainer)
    judged_on: int = 200
    subsample: int = 3

    def measure(self, folder: Path) -> dict[str, Any]:
        """Train them; return their figures by name."""
        scene = self.scene
        frames = scene.logarithm(scene.raw)
        reach = correlated_reach(correlation_of(scene.raw).lags)
        rivals: dict[str, Split] = {
            f"structured blind spot ({2 * reach + 1} x {2 * reach + 1})": quietray.Noise2Self.hiding(reach),
            "AP-BSN (5 / 2, p = 0.16)": quietray.APBSN(),
            "Noisier2Noise (adds white noise)": quietray.Noisier2Noise(),
            f"subsample ({self.subsample}), denoise, upsample": quietray.APBSN(
                self.subsample, self.subsample, refinements=0
            ),
        }
        found = {
            name: judged(self.trainer.train(frames, split)[0], frames[: self.judged_on], scene)
            for name, split in rivals.items()
        }
        panels = {"truth\n": scene.lines}
        panels |= {f"{name.split(' (')[0]}\nMSE {one['mse']:.2e}": one["image"] for name, one in found.items()}
        save(gallery(panels, 5, (-0.2, float(scene.lines.max()) + 0.1)), folder / "graas-rivals.png")
        return {name: _figures([one]) for name, one in found.items()}

    def section(self, results: Mapping[str, Any]) -> str:
        """Return this piece of the page."""
        found = {name: one["mse"] for name, one in results["d"].items()}
        best = min(found, key=lambda name: found[name])
        out = [
            f"The rivals see the raw frames; their figures are over {self.judged_on} frames. The structured blind spot "
            "hides all pixels that share noise with the target. Subsample-denoise-upsample makes images of pixels that "
            f"are {self.subsample} apart, denoises each and puts them together again. Noisier2Noise adds white noise "
            "of the variance that pixels a step apart show: quietray knows no other.",
            "![the rivals](../images/graas-rivals.png)",
        ]
        if "b" in results:
            reference = results["b"]["trained"]["decorrelated"]["mse"]
            claim = verdict(
                "the existing strategies have problems (artefacts, aliasing, overfitting) that decorrelation has not",
                reference < found[best],
                f"best rival: {best}, MSE {found[best] / reference:.2f} times that of decorrelated",
            )
            out.insert(1, table(("seeds/000 says", "measured", "reproduced"), [claim]))
        return "\n\n".join(out)


@dataclass(frozen=True)
class Overfitting:
    """Training on and on, on frames that were whitened with too narrow a response.

    Parameters
    ----------
    scene, trainer
        See the classes; the trainer has many steps.
    whitened
        Decay length of the response that is undone, in pixels; that of the scene is larger.
    judged_on
        Frames that the true error is measured on at every judgement.
    """

    scene: Scene = field(default_factory=Scene)
    trainer: Trainer = field(default_factory=lambda: Trainer(steps=1600, judgements=16))
    whitened: float = 0.35
    judged_on: int = 60

    def measure(self, folder: Path) -> dict[str, Any]:
        """Train, and return what can be known at every judgement, and what cannot: the true error."""
        scene, trainer = self.scene, self.trainer
        counts = np.asarray(whiten(scene.raw, PointResponse(laplace_response(self.whitened, 6)))[:])
        frames, split = scene.logarithm(counts), quietray.Noise2Self()
        probes = frames[: self.judged_on]
        architecture = quietray.UNet(trainer.widths)
        frozen = architecture.build(1).eval()
        denoiser = Denoiser(frozen, architecture, split, Scale(0.0, 1.0))
        state, history = folder / "overfitting.safetensors", []
        state.unlink(missing_ok=True)

        def look(step: int, n_steps: int | None, latest: Progress | None) -> None:
            if latest is None or latest.step != step:
                return
            weights, _ = load_tensors(state)
            own = {key.removeprefix("average."): one for key, one in weights.items() if key.startswith("average.")}
            frozen.load_state_dict(own)
            history.append(
                {"step": step, "held_out": latest.error, "correlation": latest.correlation}
                | _figures([judged(denoiser, probes, scene)])
            )

        data = TrainingVolume.with_held_out(frames[None], split, np.ones(frames.shape[1:], np.float32))
        settings = quietray.Training(
            steps=trainer.steps,
            batch=trainer.batch,
            patch=trainer.patch,
            judgements=trainer.judgements,
            patience=1.0,
        )
        fitted = fit(split, lambda: architecture.build(1), data, settings, checkpoint=state, watch=look)
        state.unlink()
        left = correlation_of(counts)
        save(_curves(history, fitted.best.step), folder / "graas-overfitting.png")
        middle = left.lags.shape[0] // 2
        return {
            "history": history,
            "kept": fitted.best.step,
            "left": {"neighbour": float(left.lags[middle, middle + 1]), **_summed(left)},
        }

    def section(self, results: Mapping[str, Any]) -> str:
        """Return this piece of the page."""
        found = results["c"]
        history = found["history"]
        kept = next(one for one in history if one["step"] == found["kept"])
        last, best = history[-1], min(history, key=lambda one: one["mse"])
        alone = min(history, key=lambda one: one["held_out"])
        names = {
            "last judgement": last,
            "smallest held-out estimate": alone,
            f"kept by quietray: smallest among those with residuals that correlate by under {NOT_WHITE:g}": kept,
            "smallest true error (not known in practice)": best,
        }
        rows = [
            (
                name,
                one["step"],
                f"{one['held_out']:.2e}",
                f"{one['correlation']:+.3f}",
                f"{one['mse']:.2e}",
                f"{one['noise']:.2e}",
                f"{one['dependency']:.2f}",
            )
            for name, one in names.items()
        ]
        rise, fall = last["mse"] / best["mse"] - 1, last["held_out"] / best["held_out"] - 1
        outside = [
            one["step"] for one in history if abs(one["correlation"]) > NOT_WHITE and one["step"] >= best["step"]
        ]
        claims = [
            verdict(
                "training on, the network overfits to the residual correlation",
                rise > 0.01 and last["noise"] > best["noise"] and fall < 0,
                f"from step {best['step']} to {last['step']} the true error changes by {100 * rise:+.1f} %, its noise "
                f"part by {100 * (last['noise'] / best['noise'] - 1):+.1f} %, the held-out estimate by "
                f"{100 * fall:+.1f} %",
            ),
            verdict(
                "the residual's correlation at the lags of the point response rises meanwhile (METHODS.md)",
                abs(last["correlation"]) > abs(best["correlation"]),
                f"{best['correlation']:+.3f} at step {best['step']}, {last['correlation']:+.3f} at step {last['step']}"
                + (f"; beyond {NOT_WHITE:g} from step {outside[0]} on" if outside else f"; never beyond {NOT_WHITE:g}"),
            ),
            verdict(
                "stop in time",
                kept["step"] < last["step"] and kept["mse"] < last["mse"],
                f"step {kept['step']} of {last['step']} is kept, its true error is off by "
                f"{100 * (kept['mse'] / last['mse'] - 1):+.1f} % from the last one's, and by "
                f"{100 * (kept['mse'] / best['mse'] - 1):+.1f} % from the least",
            ),
        ]
        return "\n\n".join(
            [
                "## c. Overfitting to what correlation is left",
                f"The same frames, whitened with a response of {self.whitened:g} instead of {self.scene.spread:g} "
                f"pixels: neighbours keep a correlation of {found['left']['neighbour']:.3f} "
                f"(summed: {100 * found['left']['mean']:.0f} %). {self.trainer.steps} steps; p and the true error over "
                f"{self.judged_on} frames.",
                table(
                    ("", "step", "held-out estimate", "residual correlation", "true MSE", "noise part", "p"),
                    rows,
                ),
                table(("seeds/000 says", "measured", "reproduced"), claims),
                "![error, estimate, p and residual correlation over training](../images/graas-overfitting.png)",
            ]
        )


def correlation_of(counts: Radiographs) -> Correlation:
    """Return how the noise of static frames goes together."""
    return measure_correlation(survey_frames(NoiseSource("static frames", counts)))


def _summed(found: Correlation) -> dict[str, float]:
    return {
        "mean": float(np.nanmean(found.neighbours)),
        "sd": float(np.nanstd(found.neighbours)),
        "null_sd": found.null_sd,
    }


def _figures(some: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means of what are figures, and the error of each network."""
    names = [name for name, one in some[0].items() if not isinstance(one, np.ndarray)]
    each = {"each": [one["mse"] for one in some]}
    return {name: float(np.mean([one[name] for one in some])) for name in names} | each


def _row(name: str, method: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    errors = (f"{one[key]:.2e}" for key in ("mse", "systematic", "noise", "mse_blurred"))
    return name, method, *errors, f"{one['dependency']:.2f} ± {one['dependency_error']:.2f}"


def _maps(before: Correlation, after: Correlation) -> Figure:
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    for axis, name, found in zip(axes, ("raw", "decorrelated"), (before, after), strict=False):
        shown = axis.imshow(100 * found.neighbours, vmin=-100, vmax=500, cmap="viridis", interpolation="nearest")
        axis.set_title(f"{name}: mean {100 * np.nanmean(found.neighbours):.0f} %", fontsize=8)
        axis.set_axis_off()
        axes[2].hist(100 * found.neighbours[np.isfinite(found.neighbours)], 60, alpha=0.7, label=name)
    figure.colorbar(shown, ax=list(axes[:2]), shrink=0.8).ax.tick_params(labelsize=7)
    axes[2].set_xlabel("summed correlation of a pixel (%)", fontsize=8)
    axes[2].set_ylabel("pixels", fontsize=8)
    axes[2].tick_params(labelsize=7)
    axes[2].legend(fontsize=7)
    return figure


def _curves(history: list[dict[str, Any]], kept: int) -> Figure:
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    steps = [one["step"] for one in history]
    curves = (
        ("mean squared error", {"true": "mse", "held-out estimate": "held_out", "noise part": "noise"}),
        ("neighbourhood dependency p", {"p": "dependency"}),
        ("residual correlation of neighbours", {"correlation": "correlation"}),
    )
    for axis, (title, lines) in zip(figure.subplots(1, 3), curves, strict=True):
        for label, key in lines.items():
            axis.plot(steps, [one[key] for one in history], marker=".", label=label)
        axis.axvline(kept, color="gray", linestyle="--", linewidth=1, label="kept")
        axis.set_title(title, fontsize=8)
        axis.set_xlabel("steps", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7)
    axis.axhspan(-NOT_WHITE, NOT_WHITE, color="green", alpha=0.08)
    return figure
