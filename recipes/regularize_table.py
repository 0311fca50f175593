"""The table, the forest plot and the verdicts of regularize.py."""

import argparse
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from lightning_trainingkit import experiments
from lightning_trainingkit.experiments import comparison

Runs = Sequence[Mapping[str, Any]]


def row(case: str, name: str, found: Mapping[str, Runs], times: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Summarise a regulariser over seeds, errors in percent."""
    runs, plain = found[name], found["none"]
    test, train = (100 * fmean(run[f"{part}/error"] for run in runs) for part in ("test", "train"))
    noisy = all("averaged/error" in run for run in runs)
    return {
        "regulariser": name,
        "case": case,
        "strength": runs[0]["strength"],
        "test error": test,
        **difference("gain", gains(runs, plain)),
        **difference("averaged", gains(runs, plain, "averaged/error") if noisy else None),
        **difference("averaging adds", gains(runs, runs, "averaged/error") if noisy else None),
        "gap": test - train,
        **difference("gap less", [gap(one) - gap(run) for run, one in zip(runs, plain, strict=True)]),
        **difference("time", [one / other for one, other in zip(times[name], times["none"], strict=True)]),
    }


def gains(runs: Runs, plain: Runs, kind: str = "test/error") -> list[float]:
    """Points of test error that each seed gains."""
    return [100 * (one["test/error"] - run[kind]) for run, one in zip(runs, plain, strict=True)]


def gap(run: Mapping[str, Any]) -> float:
    """Test less train error, in points."""
    return 100 * float(run["test/error"] - run["train/error"])


def difference(name: str, values: Sequence[float] | None) -> dict[str, float | None]:
    """Mean and half width of the interval, under two names."""
    middle, half = (None, None) if values is None else comparison.interval(values)
    return {name: middle, f"{name} +-": half}


def shown(found: Mapping[str, Any]) -> dict[str, Any]:
    """Join each mean and its interval in one cell."""
    cells = {}
    for key, value in found.items():
        if key != "averaging adds" and f"{key} +-" in found and value is not None:
            plain = found["regulariser"] == "none"
            sign = "" if key == "time" else "+"
            cells[key] = None if plain else f"{value:{sign}.2f} +- {found[f'{key} +-']:.2f}"
        elif key not in ("case", "averaging adds") and not key.endswith("+-"):
            cells[key] = f"{value:.2f}" if key in ("test error", "gap") else value
    return cells


def verdict(found: Mapping[str, Any]) -> str:
    """Say whether the test error is better than without a regulariser, and whether averaging over the noise helps."""

    def word(key: str, equal: str) -> str:
        value, half = found[key], found[f"{key} +-"]
        sign = equal if abs(value) <= half else "better" if value > 0 else "worse"
        return f"{sign} ({value:+.2f} +- {half:.2f} points)"

    said = f"{word('gain', 'not to be told from none')} without averaging"
    if found["averaged"] is None:
        return said.removesuffix(" without averaging")
    return f"{said}, {word('averaged', 'not to be told from none')} with it"


def claims(
    parser: argparse.ArgumentParser, args: argparse.Namespace, found: Mapping[str, Mapping[str, Runs]]
) -> list[dict[str, Any]]:
    """Judge the lecture's four sentences, each if its regularisers were trained."""
    first, *others = found
    main = found[first]
    mlp = next((each for each in others if each.startswith("MLP")), None)
    other = next((each for each in others if each.startswith("CNN")), None)
    judged = []

    def judge(text: str, measured: list[tuple[str, list[float]]], *checks: bool) -> None:
        intervals = [comparison.interval(values) for _, values in measured]
        words = [
            f"{name} {middle:+.2f} +- {half:.2f}" for (name, _), (middle, half) in zip(measured, intervals, strict=True)
        ]
        above = [middle > half for middle, half in intervals]
        judged.append(
            experiments.claim(parser, args, 8, text, f"points of test error: {', '.join(words)}", *above, *checks)
        )

    if mlp is not None:
        judged.append(scaling(parser, args, found[mlp]))
        large = gains(found[mlp]["dropout"], found[mlp]["none"])
        small = gains(main["dropout"], main["none"])
        more = [one - two for one, two in zip(large, small, strict=True)]
        judge("Dropout for large fully-connected layers", [("the MLP's gain", large), ("less the CNN's", more)])
    always = [name for name in ("BatchNorm", "flips and shifts") if name in main]
    if len(always) == 2:
        measured = [(name, gains(main[name], main["none"])) for name in always]
        measured.append(("averaged over views", gains(main[always[1]], main["none"], "averaged/error")))
        judge("BatchNorm and augmentation almost always", measured)
    if other is not None:
        less, more_images = sorted((first, other), key=lambda each: int(each.split()[1]))
        measured = []
        for name in (each for each in ("cutout", "mixup") if each in main):
            one, two = (gains(found[each][name], found[each]["none"]) for each in (less, more_images))
            measured += [
                (f"{name}'s gain on {less}", one),
                (f"less that on {more_images}", [a - b for a, b in zip(one, two, strict=True)]),
            ]
        judge("Cutout and mixup for small sets", measured)
    return judged


def scaling(parser: argparse.ArgumentParser, args: argparse.Namespace, found: Mapping[str, Runs]) -> dict[str, Any]:
    """Judge vanilla dropout, which scales at test time, beside inverted dropout, which scales in training."""
    vanilla, inverted = found["vanilla dropout"], found["dropout"]
    middle, half = comparison.interval(gains(vanilla, inverted))
    error, error_half = comparison.interval([-each for each in gains(vanilla, vanilla, "forgotten/error")])
    loss, loss_half = comparison.interval([run["forgotten/loss"] - run["test/loss"] for run in vanilla])
    apart = max(run["apart"] for run in vanilla)
    return experiments.claim(
        parser,
        args,
        8,
        "Vanilla dropout must scale at test time, inverted dropout leaves test time unchanged",
        f"Vanilla less inverted dropout: test error {-middle:+.2f} +- {half:.2f} points. Same weights and masks: "
        f"probabilities differ by at most {apart:.1g}. Scale forgotten: error {error:+.2f} +- {error_half:.2f} points, "
        f"loss {loss:+.3f} +- {loss_half:.3f}",
        abs(middle) <= half,
        apart < 1e-3,
        loss > loss_half,
    )


def draw(figure: Any, rows: Runs) -> None:
    """Draw each gain with its interval, the best at the top, in a colour for each case. Hollow: averaged over noise."""
    axes = figure.subplots()
    ordered = sorted((each for each in rows if each["regulariser"] != "none"), key=lambda each: each["gain"])
    for number, case in enumerate(dict.fromkeys(each["case"] for each in rows)):
        places = [place for place, each in enumerate(ordered) if each["case"] == case]
        mine = [ordered[place] for place in places]
        style = {"fmt": "osD^"[number], "color": f"C{number}", "capsize": 3}
        for key, shift, more in (("gain", 0.0, {"label": case}), ("averaged", 0.3, {"markerfacecolor": "white"})):
            shown = [(place, each) for place, each in zip(places, mine, strict=True) if each[key] is not None]
            if shown:
                heights, values = [place - shift for place, _ in shown], [each[key] for _, each in shown]
                axes.errorbar(values, heights, xerr=[each[f"{key} +-"] for _, each in shown], **style, **more)
    axes.set_yticks(range(len(ordered)), [each["regulariser"] for each in ordered])
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=5)  # linear up to 5 points: one bad row must not squeeze the others
    low, high = axes.get_xlim()
    axes.set_xticks([tick for tick in (-20, -10, *range(-5, 6), 10, 20) if low <= tick <= high], minor=False)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(
        "gain in test error over none of the same case, points, with 95 % interval, paired by seed\n"
        "hollow: averaged over the noise at test time. The axis is logarithmic beyond 5 points"
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=3)
