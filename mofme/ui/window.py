"""The app's window: its tabs, its limits, and the server behind `python app.py`."""

import os
import signal
from collections.abc import Callable

# Before Gradio is imported: it asks its makers for news otherwise, and the app must work offline.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr

from mofme.papers.attention_router import tab as attention_router
from mofme.papers.binaryconnect import tab as binaryconnect
from mofme.papers.carrot import tab as carrot
from mofme.papers.ladimo import tab as ladimo
from mofme.papers.mixture_of_routers import tab as mixture_of_routers
from mofme.papers.moe_distillation import tab as moe_distillation
from mofme.papers.r2t2 import tab as r2t2
from mofme.papers.router_robustness import tab as router_robustness
from mofme.papers.smose import tab as smose
from mofme.ui.examples import examples_folder
from mofme.ui.html import PLOTS
from mofme.ui.models import Services
from mofme.ui.tabs import batch, evaluate, live, restore, video
from mofme.ui.theme import CSS, PASTE_ANYWHERE, theme
from mofme.ui.uploads import KEEP_SECONDS, own_folder

TITLE = "MoFME"
SENTENCE = (
    "Takes rain, snow, raindrops and haze out of your photos and videos, and shows which experts did it. "
    "The same idea picks the language model for a prompt."
)

# A new tab is one line here and a `build` in tabs/ or in a paper's tab.py.
GROUPS: dict[str, dict[str, Callable[[Services], None]]] = {
    "Pictures": {
        "Restore": restore.build,
        "Batch": batch.build,
        "Video": video.build,
        "Live": live.build,
        "Evaluate": evaluate.build,
        "Re-routing": r2t2.build,
    },
    "Language models": {
        "LLM routing": carrot.build,
        "Router robustness": router_robustness.build,
        "Dense to MoE": ladimo.build,
        "Distillation": moe_distillation.build,
        "Mixture of routers": mixture_of_routers.build,
        "Attention router": attention_router.build,
    },
    "Tiny models": {
        "Binary weights": binaryconnect.build,
        "Interpretable control": smose.build,
    },
}


def build(services: Services) -> gr.Blocks:
    """The window, not yet served."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEEP_SECONDS, KEEP_SECONDS)) as window:
        gr.HTML(f"<h1>{TITLE}</h1><p>{SENTENCE}</p>", elem_id="header", padding=False)
        if not services.engine.models:
            gr.Markdown("**No model is installed**: the weights folder is empty. Download the project again.")
        with gr.Tabs(elem_id="groups"):
            for group, tabs in GROUPS.items():
                with gr.Tab(group), gr.Tabs():
                    for name, draw in tabs.items():
                        with gr.Tab(name):
                            draw(services)
    return window.queue(max_size=services.limits.waiting)


def serve(services: Services, host: str = "127.0.0.1", port: int = 7860, auth: tuple[str, str] | None = None) -> None:
    """Serve the window at `host`:`port` until the process is ended."""
    # A service is stopped as by Ctrl-C: what visitors uploaded is then removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with own_folder() as folder:
        os.environ.setdefault("GRADIO_TEMP_DIR", str(folder))
        build(services).launch(
            server_name=host,
            server_port=port,
            auth=auth,
            share=False,
            inbrowser=False,
            ssr_mode=False,
            footer_links=[],
            max_file_size=f"{services.limits.upload_megabytes}mb",
            allowed_paths=[str(examples_folder())],
            app_kwargs={"routes": [PLOTS]},
            theme=theme(),
            css=CSS,
            js=PASTE_ANYWHERE,
        )
