"""What a result means for who reads it: one plain sentence, and the column of figures that bears it.

The words go by which side of its level the telling figure's interval lies on, so they change with what is measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mofme.measure.result import Figure, Result


@dataclass(frozen=True)
class Headline:
    """`sentence`, and the figures of one column by row, of which `telling` is the row that the sentence speaks of."""

    sentence: str
    column: str
    telling: str
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class _Telling:
    """Where the telling figure stands, and the sentence if all of its interval is above 0, below it, or neither.

    `{value}` is the figure without its interval, `{less}` the share in percent by which the error shrinks where it is
    a gain in dB. A sentence that is the only one takes no side.
    """

    table: str
    column: str
    row: str
    above: str
    below: str = ""
    neither: str = ""

    def sentence(self, figure: Figure) -> str:
        words = {1: self.above, -1: self.below, 0: self.neither}[figure.side()] or self.above
        value = f"{abs(figure.value):,.{0 if abs(figure.value) >= 10 else 1}f}"
        return words.format(value=value, less=f"{100 * (1 - 10 ** (-figure.value / 20)):.0f}")


_ROOMS = {
    "ablation": _Telling(
        "differences",
        "gain, dB (seeds)",
        "MoFME, 16 experts minus conventional MoE, 16 experts",
        "Sixteen nearly free experts clear photos better than sixteen full ones.",
        "Sixteen nearly free experts clear photos worse than sixteen full ones.",
        "Sixteen nearly free experts clear photos as well as sixteen full ones, as far as can be told.",
    ),
    "ablation_arms": _Telling(
        "differences",
        "gain, dB (seeds)",
        "MoFME, authors' generators, 16 experts minus conventional MoE, 16 experts",
        "Sixteen experts made anew for each spot clear photos better than sixteen full ones.",
        "Sixteen experts made anew for each spot clear photos worse than sixteen full ones.",
        "Sixteen experts made anew for each spot clear photos as well as sixteen full ones, as far as can be told.",
    ),
    "attention_router": _Telling(
        "differences",
        "gain, nats a token (seeds)",
        "attention router against linear router",
        "Letting experts look at one another makes a small, briefly trained language model read better.",
        "Letting experts look at one another makes a small, briefly trained language model read worse.",
        "A small, briefly trained language model reads as well if experts look at one another, as far as can be told.",
    ),
    "bench": _Telling(
        "Saved by MoFME on small, against the conventional MoE",
        "time saved, %",
        "16 experts",
        "A picture takes {value} % less time with sixteen experts than with a usual mixture.",
        "A picture takes {value} % more time with sixteen experts than with a usual mixture.",
        "With sixteen experts a picture takes as long as with a usual mixture, as far as can be told.",
    ),
    "binary_mnist": _Telling(
        "test error",
        "error, %",
        "deterministic",
        "With one bit a weight, {value} of 100 handwritten digits are misread.",
    ),
    "binary_restorer": _Telling(
        "PSNR, dB",
        "binary against real, gain in dB",
        "synthesized haze",
        "With most weights in one bit each, haze, which bears it worst, is cleared a little better.",
        "With most weights in one bit each, haze, which bears it worst, is cleared less well.",
        "With most weights in one bit each, haze, which bears it worst, is cleared as well, as far as can be told.",
    ),
    "classification": _Telling(
        "won back",
        "of lost agreement, %",
        "all weathers",
        "Restoring lets a program recognise again what weather had hidden, in {value} of 100 such photos.",
        "Restoring makes it harder for a program to recognise what is in a photo.",
        "Restoring does not help a program to recognise what is in a photo, as far as can be told.",
    ),
    "cluster": _Telling(
        "A million frames through Ray",
        "CPU hours",
        "1280x720",
        "A million frames in HD take {value} hours of one CPU, spread over as many as a cluster has.",
    ),
    "control": _Telling(
        "returns",
        "reached, %",
        "Hopper",
        "A hopping robot driven by rules one can read gets {value} % of the paper's points, the mean of uneven seeds.",
    ),
    "dense_to_moe": _Telling(
        "differences",
        "gain, nats a token",
        "converted, policies chosen against dense",
        "A language model cut into experts, a fifth of it left out for each word, reads better.",
        "A language model cut into experts, a fifth of it left out for each word, reads worse.",
        "A language model cut into experts, a fifth left out for each word, reads as well, as far as can be told.",
    ),
    "llm_robustness": _Telling(
        "mmlu_gpt4_vs_mixtral: decisions turned by rewording, %",
        "all",
        "stacked ensemble",
        "Of 100 questions, {value} go to another model when they are only worded differently.",
    ),
    "llm_routing": _Telling(
        "RouterBench, 3 tasks: AIQ",
        "AIQ, gain over the hull",
        "stacked ensemble",
        "Asking a model chosen for each question gives better answers for the money than drawing lots between models.",
        "Asking a model chosen for each question gives worse answers for the money than drawing lots between models.",
        "Asking a model chosen for each question is as good for the money as drawing lots, as far as can be told.",
    ),
    "llm_routing_rate": _Telling(
        "Exponent of n in the excess risk",
        "window of the optimal order",
        "1-D, smoothness 1, margin 1",
        "More answered questions to learn from do not help the choice.",
        "The more answered questions it learns from, the closer the choice comes to the best one.",
        "More answered questions change nothing in the choice, as far as can be told.",
    ),
    "llm_serving": _Telling(
        "one request at a time",
        "added by the endpoint, ms",
        "with a trained router",
        "Choosing the model delays an answer by {value} thousandths of a second.",
    ),
    "mixture_of_routers": _Telling(
        "differences",
        "gain, points",
        "mean of the tasks: mixture of 2 against wide router, as large as 2",
        "Two routers that vote choose better than one as large as both.",
        "Two routers that vote choose worse than one as large as both.",
        "Two routers that vote choose as well as one as large as both, as far as can be told.",
    ),
    "moe_distillation": _Telling(
        "differences",
        "gain, KL on held-out text",
        "ka against gkd",
        "A student learns more when its teacher's idle experts are asked as well.",
        "A student learns less when its teacher's idle experts are asked as well.",
        "A student learns as much without its teacher's idle experts, as far as can be told.",
    ),
    "rerouting_pictures": _Telling(
        "whole photographs",
        "gain, dB",
        "all weathers",
        "A second try with experts weighed anew makes photos clearer.",
        "A second try with experts weighed anew makes photos worse.",
        "A second try with experts weighed anew makes photos neither better nor worse, as far as can be told.",
    ),
    "rerouting_text": _Telling(
        "against the routers' own choice",
        "gain, points of accuracy",
        "gradient descent",
        "The same second try lets a language model answer more questions rightly.",
        "The same second try lets a language model answer fewer questions rightly.",
        "The same second try changes nothing in how many questions a model answers rightly, as far as can be told.",
    ),
    "restoration": _Telling(
        "PSNR, dB",
        "gain",
        "rain100l",
        "Rain of a kind it never saw: a photo's error shrinks by {less} %.",
        "Rain of a kind it never saw: photos come out worse.",
        "Rain of a kind it never saw: photos come out no better, as far as can be told.",
    ),
    "restoration_ensemble": _Telling(
        "PSNR, dB",
        "gain",
        "rain100l",
        "With a second look at each photo, mirrored, the error that such rain makes shrinks by {less} %.",
        "With a second look at each photo, mirrored, photos in such rain come out worse.",
        "A second look at each photo, mirrored, makes photos in such rain no better, as far as can be told.",
    ),
    "restorers": _Telling(
        "all pictures",
        "PSNR gain, dB",
        "small",
        "Over rain, snow, drops and haze it takes {less} % of the error away.",
        "Over all weathers it makes photos worse.",
        "Over all weathers it makes photos neither better nor worse, as far as can be told.",
    ),
    "routers": _Telling(
        "differences",
        "gain, dB (seeds)",
        "uncertainty-aware, closed form minus linear",
        "A router that heeds its own doubts clears photos better than a plain one.",
        "A router that heeds its own doubts clears photos worse than a plain one.",
        "A router that heeds its own doubts clears photos as well as a plain one, as far as can be told.",
    ),
    "segmentation": _Telling(
        "mIoU, %",
        "loss won back, %",
        "mean of the weathers",
        "On a street it knows, a program that reads scenes gets back {value} % of what weather took from it.",
        "A program that reads street scenes sees less after restoring.",
        "A program that reads street scenes sees no more after restoring, as far as can be told.",
    ),
    "service": _Telling(
        "clients at once",
        "pictures",
        "64 clients",
        "Of 64 programs at once all get their pictures back; who finds the queue full is told so, and asks again.",
    ),
    "service_memory": _Telling(
        "memory",
        "growth, MB an hour",
        "4 clients",
        "Under many clients the app's memory grows by {value} megabytes an hour.",
        "Under many clients the app's memory shrinks.",
        "Under many clients the app's memory does not grow, as far as can be told.",
    ),
}
_ROOMS["dense_to_moe_100k"] = _ROOMS["dense_to_moe"]


def headline(result: Result) -> Headline | None:
    """None for a result of which no plain sentence is known, or that lacks the figure which would bear it."""
    telling = _ROOMS.get(result.room)
    if telling is None:
        return None
    figures = {
        row.name: row.figures[telling.column]
        for row in result.rows
        if row.table == telling.table and telling.column in row.figures
    }
    if telling.row not in figures:
        return None
    return Headline(telling.sentence(figures[telling.row]), telling.column, telling.row, figures)
