"""`python -m mofme evaluate`: measure on data with a known answer."""

import typer

from mofme.cli.evaluate.ablation import ablation
from mofme.cli.evaluate.attention_router import attention_router
from mofme.cli.evaluate.classification import classification
from mofme.cli.evaluate.dense_to_moe import dense_to_moe
from mofme.cli.evaluate.lora_mixture import mixture_of_routers
from mofme.cli.evaluate.moe_distillation import distillation
from mofme.cli.evaluate.rerouting import app as rerouting
from mofme.cli.evaluate.restoration import restoration
from mofme.cli.evaluate.routers import routers
from mofme.cli.evaluate.segmentation import segmentation

app = typer.Typer(no_args_is_help=True, help="Measure on data with a known answer.")
app.command()(restoration)
app.command()(segmentation)
app.command()(classification)
app.command()(ablation)
app.command("dense-to-moe")(dense_to_moe)
app.command("attention-router")(attention_router)
app.command()(routers)
app.command()(distillation)
app.add_typer(rerouting, name="rerouting")
app.command("mixture-of-routers")(mixture_of_routers)
