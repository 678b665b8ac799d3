"""Serves the app at the port given, with an untrained net, a toy router and limits low enough to be met."""

import sys
from functools import cache

from mofme.ui.limits import Limits
from mofme.ui.models import Engine, Services
from mofme.ui.window import serve
from mofme.vision.models import build_net
from mofme.vision.restorer import Restorer
from tests.ui.toy_router import toy_router

if __name__ == "__main__":
    engine = Engine(["small"], lambda name: Restorer(build_net(name), name))
    limits = Limits(megapixels=0.1, upload_megabytes=1, batch_pictures=5, prompt_characters=500)
    serve(Services(engine, limits, cache(toy_router)), port=int(sys.argv[1]))
