"""What users build on: a change here is a change for them, and belongs in the changelog."""

import importlib
import inspect

import pytest
import typer.main

import mofme
from mofme.cli import app

# Functions and classes with the parameters that may be given by name.
NAMES = {
    "mofme.core.weights": {
        "ModelCard": "name net arguments licence training metrics parameters sha256",
        "load_card": "folder",
        "load_state": "folder card",
        "save_model": "folder card state",
    },
    "mofme.files": {"model_folder": "name"},
    "mofme.core.moe": {
        "MoE": "router experts",
        "observe_routing": "model",
        "replace_routing": "model edit",
    },
    "mofme.core.rerouting": {
        "nearest": "x_D references_ND k",
        "descend": "routing_R loss_of steps rates",
        "regress": "routing_R neighbours references_NR loss_of",
        "find_mode": "routing_R references_NR k steps own",
        "routing_of": "model run",
        "rerouted": "model routing_R samples",
        "shifted": "model shift_R",
        "frozen": "model",
    },
    "mofme.core.routing": {"RoutingDecision": "weights_TE logits_TE uncertainty_T", "Router": "", "Experts": ""},
    "mofme.core.routers": {
        "LinearRouter": "dim num_experts top_k",
        "MLPRouter": "dim num_experts top_k hidden",
        "AttentionRouter": "dim num_experts top_k",
        "MixtureOfRouters": "dim num_experts top_k num_routers",
    },
    "mofme.core.uncertainty": {"UncertaintyRouter": "dim num_experts top_k dropout samples"},
    "mofme.core.experts": {
        "FeedForwardExperts": "dim hidden num_experts",
        "FeatureModulatedExperts": "dim hidden num_experts",
        "GeneratedModulationExperts": "dim hidden num_experts",
        "LowRankExperts": "dim out num_experts rank alpha dropout",
    },
    "mofme.core.gated_experts": {
        "GatedFeedForwardExperts": "dim hidden num_experts shared",
        "GatedFeedForwardExperts.from_dense": "gate_ND up_ND down_DN order_N num_experts shared",
    },
    "mofme.core.losses.balance": {"importance_loss": "decision", "switch_loss": "decision"},
    "mofme.language.moe_distillation.distillation": {
        "Plan": "method steps seed batch learning_rate draws chance samplings",
        "distil": "teacher student prompts plan report stopped",
    },
    "mofme.language.moe_distillation.teaching": {"non_activated_mass": "teacher ids_BT"},
    "mofme.language.llm_routing.table": {
        "RoutingTable": "name prompts models quality_NM cost_NM tasks repairs",
        "RoutingTable.rows": "self index",
        "RoutingTable.keep_models": "self names",
    },
    "mofme.language.llm_routing.loaders": {"load_table": "path repair models prices"},
    "mofme.language.llm_routing.loaders.plain": {"save_plain": "table path"},
    "mofme.language.llm_routing.prices": {
        "Price": "input output",
        "Prices": "models source as_of",
        "Prices.load": "path",
        "Prices.cost": "self model input_tokens_N output_tokens_N",
    },
    "mofme.language.llm_routing.twins": {
        "near_twins": "embeddings_ND threshold",
        "same_text": "prompts",
        "groups_of": "queries threshold",
        "grouped_splits": "group_N tasks splits test_share seed",
    },
    "mofme.language.llm_routing.question": {"question_of": "prompt"},
    "mofme.language.llm_routing.sentence_encoder": {
        "SentenceEncoder": "cache remember",
        "SentenceEncoder.embed": "self prompts report",
        "SentenceEncoder.queries": "self prompts",
    },
    "mofme.language.llm_routing.carrot": {
        "CarrotRouter": "quality_estimator seed",
        "CarrotRouter.fit": "self table queries",
        "CarrotRouter.estimate": "self queries",
        "CarrotRouter.save": "self folder card",
        "CarrotRouter.load": "folder",
    },
    "mofme.language.llm_routing.router_training": {
        "train_router": "table out estimator seed licence report encoder",
    },
    "mofme.language.llm_routing.trained_router": {
        "TrainedRouter": "carrot encoder name",
        "TrainedRouter.from_pretrained": "name",
        "TrainedRouter.route": "self prompt cost_weight budget quality",
        "Routed": "model models quality_M cost_M neighbours utility_M",
        "Neighbour": "similarity task quality_M solved_by prompt",
        "available_routers": "folder",
    },
    "mofme.language.llm_routing.worth_routing": {"worth_routing": "table seed", "best_within": "table dollars"},
    "mofme.language.host": {"open_host": "name cache", "Host": "name model tokenizer"},
    "mofme.language.scoring": {
        "score_text": "model ids window stride report",
        "score_questions": "host questions report",
    },
    "mofme.language.texts": {"read_text": "path", "read_questions": "path tasks limit seed"},
    "mofme.language.small_lm.model": {
        "Shape": "vocabulary dim layers heads hidden router experts top_k",
        "SmallLM": "shape seed",
        "generate": "model ids_BT count temperature generator",
    },
    "mofme.language.small_lm.training": {
        "Plan": "steps batch context learning_rate warm_up weight_decay balance seed",
        "train": "model learned_N plan report stopped",
        "score_passages": "model passages_PT batch",
    },
    "mofme.language.small_lm.storage": {
        "save_lm": "folder model vocabulary licence training metrics",
        "load_lm": "folder",
    },
    "mofme.language.attention_router.explanation": {"explain": "text folder most"},
    "mofme.language.attention_router.live": {"train_briefly": "text plan report stopped vocabulary"},
    "mofme.language.lora_mixture.bank": {
        "Recipe": "wrapped router sub_routers experts top_k rank alpha dropout",
        "wrap": "model recipe",
        "adapter_state": "model",
    },
    "mofme.language.lora_mixture.model": {
        "LoraMixture": "classifier labels name",
        "LoraMixture.from_pretrained": "name",
        "LoraMixture.classify": "self text",
        "LoraMixture.explain": "self text",
    },
    "mofme.language.dense_to_moe.conversion": {"convert_to": "model ids recipe target work report"},
    "mofme.language.dense_to_moe.storage": {
        "save_converted": "folder host recipe licence training metrics",
        "open_model": "name",
    },
    "mofme.vision.image": {
        "read_picture": "path max_megapixels",
        "write_picture": "path rgb like format",
        "find_pictures": "folder",
    },
    "mofme.vision.metrics": {"psnr": "a b", "ssim": "a b", "rgb_to_y": "rgb", "Lpips": "weights"},
    "mofme.vision.rerouting": {
        "explain": "restorer picture method references how",
        "Rerouter": "restorer references method report",
        "References.load": "folder",
    },
    "mofme.vision.restorer": {
        "Restorer": "net name device tone",
        "Restorer.from_pretrained": "name device",
        "Restorer.__call__": "self image strength ensemble tile explain steady on_progress",
        "Restoration": "image weather uncertainty routing seconds",
        "RoutingMap": "layer weights_EHW",
        "available_models": "folder",
    },
    "mofme.vision.steady": {"Steady": "", "Steady.see": "self thumbnail", "Steady.mean": "self name judged"},
    "mofme.vision.video": {
        "restore_video": "restorer source output strength ensemble tile max_megapixels enough",
        "RestoredFrame": "number frames before restoration video",
    },
    "mofme.vision.weather": {"synthesize": "clean weathers generator", "Weathered": "image labels"},
}
ERRORS = {
    "PictureError": "MofmeError",
    "PictureTooLargeError": "PictureError",
    "ArchiveError": "MofmeError",
    "ModelError": "MofmeError",
    "ResultError": "MofmeError",
    "TableError": "MofmeError",
    "ConfigError": "MofmeError",
    "Cancelled": "MofmeError",
}
COMMANDS = {
    "restore": "SOURCE OUTPUT --model --device --tile --strength --ensemble --reroute --references --overwrite "
    "--format --json --max-megapixels",
    "build-references": "PHOTOGRAPHS --out --model --limit --pairs --seed --sources --licence",
    "models": "--json",
    "synthesize": "CLEAN OUT --weather --seed --count",
    "train": "CLEAN --out --pairs --size --init --minutes --batch --crop --learning-rate --seed --device "
    "--validate-minutes --sources --licence --binary",
    "train-segmenter": "FRAMES LABELS --out --label-set --steps --batch --learning-rate --seed --from-scratch "
    "--sources --licence",
    "train-tone": "CLEAN --out --model --samples --steps --batch --learning-rate --seed --sources --licence",
    "binary train": "DIGITS --runs --arm --seeds --epochs --batch --learning-rate --width",
    "binary evaluate": "DIGITS --runs --nets --repeats --out --json",
    "binary pack": "DIGITS RUN --out --licence",
    "binary restorer": "PHOTOGRAPHS --model --against --limit --seed --out --json",
    "bench": "--side --experts --repeats --backbone --out --json",
    "bench restorers": "PAIRS --model --onnx --limit --out --json",
    "bench routing-server": "--clients --requests --router --out --json",
    "evaluate attention-router": "--text --arms --seeds --steps --balance --out --json",
    "evaluate routers": "CLEAN --arms --seeds --steps --limit --out --json",
    "evaluate ablation": "CLEAN --out --arms --seeds --steps --limit --lpips-weights",
    "evaluate restoration": "PAIRS --held-back --model --device --ensemble --out --json --lpips-weights --limit --seed",
    "evaluate classification": "PICTURES --classifier --degraded --weather --seed --model --device --limit --out "
    "--json",
    "moefy": "MODEL --text --out --target --experts --shared --split --router --tokens --seed --licence",
    "distil": "TEACHER STUDENT --text --out --method --layers --steps --batch --passages --learning-rate --seed "
    "--licence",
    "evaluate distillation": "TEXTS --arms --seeds --steps --pair-steps --learning-rate --licence --out --json",
    "evaluate dense-to-moe": "MODEL --text --questions --arms --task --target --experts --shared --tokens --measure "
    "--limit --seeds --out --json",
    "evaluate rerouting pictures": "PHOTOGRAPHS --references --work --model --limit --seed --out --json",
    "evaluate rerouting text": "MODEL --pool --test --work --task --references --limit --layers --seed --out --json",
    "evaluate mixture-of-routers": "TABLES --arms --steps --batch --limit --seeds --adapters --licence --out --json",
    "results": "NAMES --quote --folder",
    "control train": "ENVIRONMENT --out --steps --seed --experts --balance",
    "control evaluate": "POLICIES --episodes --trees --out --json",
    "control explain": "POLICY --depth --seed --picture",
    "route evaluate": "TABLES --splits --seed --repair --models --out --json",
    "route prompt": "PROMPT --budget --cost-weight --quality --router --json",
    "route robustness": "--queries --table --seeds --router --out --json",
    "route serve": "CONFIG --host --port --router --check",
    "route simulate": "--out --largest --json",
    "route train": "TABLE --out --estimator --seed --prices --repair --licence",
    "evaluate segmentation": "FRAMES LABELS --segmenter --label-set --segmenter-labels --normalisation --degraded "
    "--weather --seed --model --device --limit --out --pictures --json",
}
PUBLIC = [(module, name) for module, names in NAMES.items() for name in names]


def find(module: str, name: str) -> object:
    found: object = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_parameters_keep_their_names_and_order(module: str, name: str) -> None:
    found = find(module, name)
    if inspect.isclass(found) and inspect.isabstract(found):
        return
    assert callable(found)
    assert " ".join(inspect.signature(found).parameters) == NAMES[module][name]


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_every_public_name_is_documented(module: str, name: str) -> None:
    found = find(module, name)
    documentation = found.__doc__ or ""
    # A dataclass without a docstring is given its own signature for one.
    assert documentation and not documentation.startswith(f"{name}(")


def test_the_tree_of_errors() -> None:
    errors = importlib.import_module("mofme.errors")
    assert {name: getattr(errors, name).__base__.__name__ for name in ERRORS} == ERRORS


def test_the_weathers_in_their_order() -> None:
    assert importlib.import_module("mofme.vision.weather").WEATHERS == ("rain", "snow", "raindrop", "haze")


def test_commands_keep_their_flags() -> None:
    def walk(command: object, name: tuple[str, ...] = ()) -> dict[str, str]:
        children = getattr(command, "commands", {})
        below = {k: v for child in children for k, v in walk(children[child], (*name, child)).items()}
        if children and not command.invoke_without_command:  # type: ignore[attr-defined]
            return below
        parameters = [
            p.opts[-1] if p.param_type_name == "option" else p.name.upper()
            for p in command.params  # type: ignore[attr-defined]
        ]
        return {" ".join(name): " ".join(parameters), **below}

    assert walk(typer.main.get_command(app)) == COMMANDS


def test_it_knows_its_version() -> None:
    assert mofme.__version__ == "0.1.0"
