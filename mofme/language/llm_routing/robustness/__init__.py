"""Where routers between two models go wrong: by category, under rewording, under attack, and with private data.

Source: DSC, "How Robust Are Router-LLMs?" (arXiv 2504.07113). Its counts, sources and tables are not public, so the
prompts here come from open sets (`sources`) and from our own (`probes`); what is measured and how is our reading.

Axis names beside those of the room: R routers, W rewordings, N probes.
"""
